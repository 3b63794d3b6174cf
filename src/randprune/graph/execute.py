"""Run a traced graph step by step: the only interpreter of one.

An `ExecutableGraph` is made once from a `Program`. An `Execution` evaluates it: all of it in order,
or from any node on demand, with the tensors that it is given, so that two networks can be walked
side by side, weights can be replaced before anything behind them is computed, and a value is
dropped after its last use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from randprune.graph.program import Program
from randprune.graph.steps import Steps, functional

Hook = Callable[["Execution"], None]


class ExecutableGraph:
    """A program as steps that can be run with any tensors.

    Attributes:
        program: what was exported.
        nodes: its nodes, in order.
        steps: its calls without side effects.
        inputs: the nodes that stand for the network's inputs.
        fixed_batch: the only batch size that the graph runs with; None where it is free.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes: tuple[Node, ...] = tuple(program.graph.nodes)
        self._names = {n: program.tensors[n.name] for n in self.nodes if n.name in program.tensors}
        self.inputs: tuple[Node, ...] = tuple(
            n
            for n in self.nodes
            if n.op == "placeholder" and n not in self._names and n.name not in program.constants
        )
        self.steps: Steps = functional(self.nodes)
        sizes = [_constant(n.meta["val"].shape[0]) for n in self.inputs if _has_batch(n)]
        self.fixed_batch: int | None = next((size for size in sizes if size is not None), None)

    @property
    def outputs(self) -> tuple[Node, ...]:
        """The nodes whose values are the network's outputs."""
        return self.steps.outputs

    def tensor_name(self, node: object) -> str:
        """The parameter or buffer that a node stands for; "" for anything else."""
        return self._names.get(node, "") if isinstance(node, Node) else ""

    def given(self, node: Node, tensors: Mapping[str, Tensor]) -> Any:
        """The value of a node that no step makes: a parameter, a buffer or a constant."""
        if node in self._names:
            return tensors[self._names[node]]
        if node.op == "get_attr":
            return getattr(self.program.module, str(node.target))
        return self.program.constants[node.name]

    def run(
        self,
        tensors: Mapping[str, Tensor],
        inputs: Iterable[Any],
        hooks: Mapping[Node, Hook] | None = None,
    ) -> Execution:
        """A new evaluation; nothing is computed yet. See `Execution`."""
        values = dict(zip(self.inputs, inputs, strict=True))
        return Execution(self, self.steps, tensors, values, hooks=hooks)


class Execution:
    """Values of one evaluation, computed when asked for, and dropped after their last use.

    Args:
        graph: what is evaluated.
        steps: its steps, or some of them.
        tensors: parameters and buffers by name; read at the moment of use, so that a layer's
            weights may be replaced until the layer is computed.
        values: what is known already, such as the inputs.
        hooks: called just before the step of a node is computed.
        instead: functions that give a node's value in place of its step.

    Attributes:
        amend: node -> a function that its value goes through as soon as it is computed.
    """

    def __init__(
        self,
        graph: ExecutableGraph,
        steps: Steps,
        tensors: Mapping[str, Tensor],
        values: Mapping[Node, Any],
        *,
        hooks: Mapping[Node, Hook] | None = None,
        instead: Mapping[Node, Callable[[], Any]] | None = None,
    ) -> None:
        self.graph = graph
        self.steps = steps
        self.tensors = tensors
        self.values: dict[Node, Any] = dict(values)
        self.hooks = {} if hooks is None else hooks
        self.instead = {} if instead is None else instead
        self.amend: dict[Node, Callable[[Any], Any]] = {}
        self._done: set[Node] = set()
        self._waiting = {node: len(readers) for node, readers in steps.readers.items()}
        self._pinned = set(steps.outputs)

    def value(self, node: Node) -> Any:
        """The value of a node; computes what it needs and lacks."""
        self._reach(node)
        return self._look_up(node)

    def pin(self, *nodes: Node) -> None:
        """Keep the values of nodes until `release`, whatever their readers."""
        self._pinned.update(nodes)

    def release(self, *nodes: Node) -> None:
        """Undo `pin`, and drop the values that nobody needs any more."""
        self._pinned.difference_update(nodes)
        for node in nodes:
            if self._waiting.get(node, 0) <= 0:
                self.values.pop(node, None)

    def finish(self) -> Any:
        """Compute everything that is left, in order; the first output."""
        for each in self.steps.order:
            if each.node not in self._done:
                self._reach(each.node)
        return self._look_up(self.steps.outputs[0])

    def outputs(self) -> list[Tensor]:
        """Compute everything that is left; the floating-point tensors that the network gives."""
        self.finish()
        values = [self._look_up(node) for node in self.steps.outputs]
        return [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]

    def fork(self, tensors: Mapping[str, Tensor]) -> Execution:
        """A second evaluation that shares all values computed so far; without hooks."""
        copy = Execution(self.graph, self.steps, tensors, self.values, instead=self.instead)
        copy.amend = dict(self.amend)
        copy._done = set(self._done)
        copy._waiting = dict(self._waiting)
        return copy

    def _reach(self, node: Node) -> None:
        stack = [node]
        while stack:
            current = stack[-1]
            each = self.steps.at.get(current)
            if each is None or current in self.values:
                stack.pop()
                continue
            missing = [n for n in each.sources if n in self.steps.at and n not in self.values]
            if missing:
                stack.extend(missing)
                continue
            if current in self._done:
                raise AssertionError(f"the value of {current.name} was dropped before its last use")
            if current in self.hooks:
                self.hooks[current](self)
            self._compute(current)
            stack.pop()

    def _look_up(self, node: Node) -> Any:
        if node in self.values:
            return self.values[node]
        return self.graph.given(node, self.tensors)

    def _compute(self, node: Node) -> None:
        each = self.steps.at[node]
        result = self.instead[node]() if node in self.instead else each.call(self._look_up)
        self.values[node] = self.amend[node](result) if node in self.amend else result
        self._done.add(node)
        if node not in self._waiting and node not in self._pinned:
            self.values.pop(node, None)
        for source in each.sources:
            self._waiting[source] -= 1
            if self._waiting[source] <= 0 and source not in self._pinned:
                self.values.pop(source, None)


def _constant(size: int | torch.SymInt) -> int | None:
    """The size where the graph holds for it alone."""
    return size if isinstance(size, int) else size.node.maybe_as_int()


def _has_batch(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.ndim > 0
