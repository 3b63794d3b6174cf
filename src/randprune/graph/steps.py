"""A traced graph as steps without side effects.

An exported graph keeps operators that write into their operand. Here each becomes a step that
returns the new value, and everybody who reads the operand later reads that instead. So the steps
may run in any order that their sources allow, once or many times, and no value changes after it was
made.

A write is also seen through views of the same memory. Where such a relative is read after the
write, the step gives new values of all relatives at once: it copies the memory that they share,
writes into the copy, and lays the same views over it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves, tree_map_only

from randprune.errors import UnsupportedModelError
from randprune.graph.rules import describe, operator_name

# Operators that may hand out their operand itself, although their schema does not say so.
_MAY_ALIAS = frozenset(
    ("reshape", "flatten", "unflatten", "contiguous", "dropout", "feature_dropout", "to", "getitem",
     "alpha_dropout", "type_as", "view_as", "expand_as", "ravel", "movedim", "chunk", "split",
     "tensor_split", "squeeze", "unsqueeze", "float", "detach", "alias", "positive", "conj")
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One call, with the nodes that its arguments stand for.

    Attributes:
        node: whose value the step gives.
        operator: its name, e.g. "relu", also where the graph says "relu_".
        target: what is called; it writes into none of its arguments.
        args, kwargs: in terms of nodes.
        sources: all nodes among them, each once.
        joint: whether the values of `sources` must share memory as they do in the network.
    """

    node: Node
    operator: str
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    sources: tuple[Node, ...]
    joint: bool = False

    def call(self, value: Callable[[Node], Any]) -> Any:
        """The result, with the values that `value` gives for its sources."""
        args = torch.fx.map_arg(self.args, value)
        return self.target(*args, **torch.fx.map_arg(self.kwargs, value))

    def bound(self) -> dict[str, Any]:
        """Arguments by the name that the operator's schema gives them, defaults filled in.

        Steps that call no ATen operator have what they were given by keyword.
        """
        if not isinstance(self.target, torch._ops.OpOverload):
            return dict(self.kwargs)
        found: dict[str, Any] = {}
        for position, argument in enumerate(self.target._schema.arguments):
            if position < len(self.args):
                found[argument.name] = self.args[position]
            elif argument.name in self.kwargs:
                found[argument.name] = self.kwargs[argument.name]
            elif argument.has_default_value():
                found[argument.name] = argument.default_value
        return found


def step(
    node: Node,
    target: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    name: str = "",
    joint: bool = False,
) -> Step:
    """A step, with its sources read off its arguments; `name` where it is not the node's own."""
    named = dict(kwargs or {})
    leaves = tree_leaves((args, named))
    sources = tuple(dict.fromkeys(leaf for leaf in leaves if isinstance(leaf, Node)))
    return Step(node, name or operator_name(node), target, args, named, sources, joint)


class Steps:
    """Steps in an order in which they can run, and who reads what.

    Attributes:
        order: the steps; sources come first.
        outputs: nodes whose values are results.
        at: node -> the step that makes its value.
        readers: node -> the steps that read it, for nodes that anybody reads.
    """

    def __init__(self, order: Iterable[Step], outputs: Iterable[Node]) -> None:
        self.order = tuple(order)
        self.outputs = tuple(outputs)
        self.at = {s.node: s for s in self.order}
        found: dict[Node, list[Step]] = {}
        for each in self.order:
            for source in each.sources:
                found.setdefault(source, []).append(each)
        self.readers: Mapping[Node, tuple[Step, ...]] = {n: tuple(s) for n, s in found.items()}

    def only_reader(self, node: Node) -> Step | None:
        """The step that alone reads a node's value; None where others do, or the value is a result.

        A step that reads it twice counts once.
        """
        readers = self.readers.get(node, ())
        return readers[0] if len(readers) == 1 and node not in self.outputs else None


def functional(nodes: Iterable[Node]) -> Steps:
    """The calls of a graph, none of which writes into memory that another one reads.

    Raises:
        UnsupportedModelError: an operator writes into something else than its first operand.
    """
    return _Maker(tuple(nodes)).steps()


class _Maker:
    """Walks over the graph once.

    Attributes:
        now: node -> the node that holds its value after the writes so far.
        family: node -> all nodes whose values may share memory with its value.
    """

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        self.nodes = nodes
        self.place = {node: number for number, node in enumerate(nodes)}
        self.now: dict[Node, Node] = {}
        self.family: dict[Node, set[Node]] = {}
        self.found: list[Step] = []
        # Values that the graph has no node for get one here, so that the graph stays as it is.
        self.extra = Graph()

    def steps(self) -> Steps:
        for node in self.nodes:
            if node.op == "call_function" and not operator_name(node).startswith("_assert"):
                self._add(node)
        output = next(node for node in self.nodes if node.op == "output")
        results = [n for n in tree_leaves(output.args) if isinstance(n, Node)]
        return Steps(self.found, [self._current(n) for n in results])

    def _current(self, node: Node) -> Node:
        return self.now.get(node, node)

    def _add(self, node: Node) -> None:
        args = torch.fx.map_arg(node.args, self._current)
        kwargs = torch.fx.map_arg(node.kwargs, self._current)
        written = _written(node)
        target: Any = node.target
        if written is None:
            self.found.append(step(node, target, args, kwargs))
            if _may_alias(node):
                self._relate(node, node.all_input_nodes)
            return
        current = self._current(written)
        relatives = self.family.get(written, {written})
        same = [m for m in relatives if self._current(m) is current]
        later = (m for m in relatives if m not in same and self._read_after(m, node))
        if any(later):
            others = dict.fromkeys(self._current(m) for m in self._in_order(relatives))
            others.pop(current, None)
            self._add_joint(node, (current, *others), args, kwargs)
        else:
            called = _out_of_place(node) or partial(_on_a_copy, target)
            name = operator_name(node).removesuffix("_")
            self.found.append(step(node, called, args, kwargs, name=name))
            self.now.update(dict.fromkeys(same, node))
        self._relate(node, [written])

    def _add_joint(
        self, node: Node, values: tuple[Node, ...], args: tuple[Any, ...], kwargs: Any
    ) -> None:
        """A step for all `values` that may share memory, the written one first."""
        joint = self.extra.placeholder(f"{node.name}_jointly")
        name = f"{operator_name(node)} through views"
        target: Any = node.target
        called = partial(_write_jointly, target)
        self.found.append(
            step(joint, called, (values, args[1:]), kwargs, name=name, joint=True)
        )  # fmt: skip
        renewed: dict[Node, Node] = {}
        for number, value in enumerate(values):
            new = node if number == 0 else self.extra.placeholder(f"{value.name}_after_{node.name}")
            if number:
                new.meta.update(value.meta)
            self.found.append(step(new, operator.getitem, (joint, number), name="getitem"))
            renewed[value] = new
        for member in self.family[next(iter(_first(node)))]:
            current = self._current(member)
            if current in renewed:
                self.now[member] = renewed[current]

    def _relate(self, node: Node, sources: Iterable[Node]) -> None:
        members = {node}.union(*(self.family.get(s, {s}) for s in sources))
        self.family.update(dict.fromkeys(members, members))

    def _read_after(self, member: Node, node: Node) -> bool:
        return any(self.place[user] > self.place[node] for user in member.users)

    def _in_order(self, members: Iterable[Node]) -> list[Node]:
        return sorted(members, key=self.place.__getitem__)


def _first(node: Node) -> list[Node]:
    return [a for a in node.args[:1] if isinstance(a, Node)]


def _written(node: Node) -> Node | None:
    """The operand that an in-place operator writes to, None for all others."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return None
    places = [i for i, a in enumerate(target._schema.arguments) if a.is_write]
    first = _first(node)
    if places != [0] or not first:
        raise UnsupportedModelError(
            f"{describe(node)} writes into another operand than its first one, so that the graph "
            "cannot be run step by step. Rewrite that line of the forward pass."
        )
    return first[0]


def _out_of_place(node: Node) -> Any:
    """The operator that returns what this one writes; None where there is none."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    # In place the operand's type stays; out of place the wider one of two types would win.
    values = [n.meta.get("val") for n in node.all_input_nodes]
    if len({v.dtype for v in values if isinstance(v, Tensor)}) > 1:
        return None
    name = target._schema.name.split("::")[1]
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    found = name.endswith("_") and packet is not None and target._overloadname in packet.overloads()
    return getattr(packet, target._overloadname) if found else None


def _on_a_copy(target: Callable[..., Any], operand: Tensor, *args: Any, **kwargs: Any) -> Any:
    return target(operand.clone(), *args, **kwargs)


def _may_alias(node: Node) -> bool:
    target = node.target
    if operator_name(node) in _MAY_ALIAS:
        return True
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return any(r.alias_info is not None for r in target._schema.returns)


def _write_jointly(
    target: Callable[..., Any], values: tuple[Any, ...], args: tuple[Any, ...], **kwargs: Any
) -> tuple[Any, ...]:
    """New values after `target` wrote into the first one; the given ones stay as they are.

    Values that do not share memory with the first one come back themselves.
    """
    memory = values[0].untyped_storage().data_ptr()
    sharing = [
        v
        for v in tree_leaves(values)
        if isinstance(v, Tensor) and v.untyped_storage().data_ptr() == memory
    ]
    # The widest one holds all others, since it is what they are views of.
    widest = max(sharing, key=_extent)
    start, extent = widest.storage_offset(), _extent(widest)
    copy = widest.as_strided((extent,), (1,), start).clone()

    def renew(value: Tensor) -> Tensor:
        if value.untyped_storage().data_ptr() != memory:
            return value
        return copy.as_strided(value.shape, value.stride(), value.storage_offset() - start)

    renewed: tuple[Any, ...] = tree_map_only(Tensor, renew, values)
    target(renewed[0], *args, **kwargs)
    return renewed


def _extent(value: Tensor) -> int:
    """How many numbers of memory lie between a tensor's first and last one, inclusive."""
    sizes = zip(value.shape, value.stride(), strict=True)
    return 1 + sum((size - 1) * stride for size, stride in sizes) if value.numel() else 0
