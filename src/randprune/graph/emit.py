"""Emit a cut network from the exported graph, with the constants of its forward recomputed.

Convolutions, linear layers and batch norms become ordinary modules under their own names, so that
training, batch-norm recalibration and hooks work as on the original; the rest are ATen calls.

Known shortcomings: the graph is the evaluation-mode forward (dropout is gone); the batch size is
free only where torch.export can keep it symbolic, otherwise it is that of the example inputs.
"""

from __future__ import annotations

import operator
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node
from torch.nn.modules.batchnorm import _BatchNorm

from randprune.errors import InvalidInputError, UnsupportedModelError
from randprune.graph.fold import fold_weights
from randprune.graph.program import Program, export_program
from randprune.graph.propagate import Exits, Propagation, propagate
from randprune.graph.rewrites import Scaled, Survivors, rewritten
from randprune.graph.rules import operator_name
from randprune.graph.slicing import kept_positions, narrow_tensor
from randprune.lineage import named_tensors
from randprune.space import Selection, Space


@dataclass(frozen=True, slots=True, eq=False)
class Emission:
    """One export of a network, from which any number of selections can be emitted.

    `inputs` are the example inputs that it was exported with: their batch is free where
    torch.export could keep it symbolic, else it is the traced one.
    """

    program: Program
    found: Propagation
    state: dict[str, torch.Tensor]
    inputs: tuple[Any, ...]
    name: str
    training: bool

    def network(self, space: Space, selection: Selection) -> GraphModule:
        """The cut network.

        Raises:
            UnsupportedModelError: the exported graph does not have the space's tensors.
        """
        alive = _alive(self.found, space, selection)
        survivors = Survivors(self.found.labels, alive, self.found.values)
        removed = kept_positions(space, selection)
        root = nn.Module()
        root.train(self.training)
        return _Emitter(self.program, survivors, self.state, removed, root).build(self.name)


def export_for_emission(
    model: nn.Module,
    inputs: tuple[Any, ...],
    allow: frozenset[str] = frozenset(),
    free_batch: bool = True,
    exits: Exits = None,
) -> Emission:
    """Export, fold and propagate in graph mode, with a symbolic batch where that is possible."""
    program = None
    example = doubled(inputs) if free_batch else inputs
    try:
        program = export_program(model, example, dynamic_batch=free_batch)
    except (InvalidInputError, UnsupportedModelError):
        if not free_batch:
            raise
    if program is None or (free_batch and not _has_free_batch(program)):
        return export_for_emission(model, inputs, allow, free_batch=False, exits=exits)
    state = named_tensors(model)
    program.graph.eliminate_dead_code()  # an emitted network does not run it either
    program = fold_weights(program, state)
    state = {**state, **program.folded}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    found = propagate(program, shapes, as_graph=True, allow=allow, exits=exits)
    return Emission(program, found, state, example, type(model).__name__, model.training)


def doubled(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs with a batch of two where it was one: torch.export fixes sizes of one."""
    tensors = [x for x in inputs if isinstance(x, torch.Tensor) and x.ndim]
    if {x.shape[0] for x in tensors} != {1}:
        return inputs
    return tuple(torch.cat([x, x]) if isinstance(x, torch.Tensor) and x.ndim else x for x in inputs)


def _has_free_batch(program: Program) -> bool:
    return any(
        isinstance(node.meta["val"].shape[0], torch.SymInt)
        for node in program.graph.nodes
        if node.op == "placeholder"
        and isinstance(node.meta.get("val"), torch.Tensor)
        and node.meta["val"].ndim
    )


_Key = tuple[Any, ...]
_LATEST: weakref.WeakKeyDictionary[nn.Module, tuple[_Key, Emission]] = weakref.WeakKeyDictionary()


def emit(model: nn.Module, space: Space, selection: Selection) -> GraphModule:
    """The cut network as a `torch.fx.GraphModule`; `model` is left untouched.

    The export of a network is kept until its weights change, so that many candidates share it.

    Raises:
        UnsupportedModelError: the network does not export to the graph of this space.
    """
    tensors = named_tensors(model).values()
    key = (space.inputs, space.allow, model.training, *((id(t), t._version) for t in tensors))
    known = _LATEST.get(model)
    if known is None or known[0] != key:
        inputs = _example(model, space)
        known = (key, export_for_emission(model, inputs, frozenset(space.allow)))
        _LATEST[model] = known
    return known[1].network(space, selection)


def _example(model: nn.Module, space: Space) -> tuple[Any, ...]:
    """Inputs of the traced shapes."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return tuple(
        torch.zeros(shape, dtype=getattr(torch, dtype), device=device)
        for shape, dtype in space.inputs
    )


def _alive(found: Propagation, space: Space, selection: Selection) -> Any:
    alive = np.ones(len(found.labels), dtype=bool)
    starts = {(axis.tensor, axis.dim): axis for axis in found.axes}
    gone: list[Any] = []
    for group, kept in zip(space.groups, selection, strict=True):
        lost = np.setdiff1d(np.arange(group.width), kept, assume_unique=True)
        for slot in group.slots:
            axis = starts.get((slot.tensor, slot.dim))
            if axis is None or int(slot.index.max()) >= axis.size:
                raise UnsupportedModelError(
                    f"The exported graph has no axis {slot.dim} of {slot.tensor!r}: the space was "
                    "traced from another network or another torch version. Trace again."
                )
            gone.append(axis.start + slot.places(lost))
    if gone:
        roots = found.labels.find(np.concatenate(gone))
        dead = np.zeros(len(found.labels), dtype=bool)
        dead[roots] = True
        everything = np.arange(len(found.labels), dtype=np.int64)
        alive = ~dead[found.labels.find(everything)]
    return alive


class _Emitter:
    """Builds the new graph node by node."""

    def __init__(
        self,
        program: Program,
        survivors: Survivors,
        state: dict[str, torch.Tensor],
        removed: dict[str, dict[int, Any]],
        root: nn.Module,
    ) -> None:
        self.program = program
        self.survivors = survivors
        self.state = state
        self.removed = removed
        self.root = root
        self.graph = Graph()
        self.new: dict[Node, Node] = {}
        self.tensor_of = {
            node: program.tensors[node.name]
            for node in program.graph.nodes
            if node.op == "placeholder" and node.name in program.tensors
        }
        self.uses = Counter(
            self.tensor_of[n]
            for node in program.graph.nodes
            if node.op == "call_function"
            for n in node.all_input_nodes
            if n in self.tensor_of
        )
        self.made: dict[str, torch.Tensor] = {}

    def build(self, name: str) -> GraphModule:
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "get_attr":
                setattr(self.root, str(node.target), getattr(self.program.module, str(node.target)))
                self.new[node] = self.graph.get_attr(str(node.target))
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                self.graph.output(self._outputs(node))
        module = GraphModule(self.root, self.graph, class_name=f"{name}Graph")
        module.graph.eliminate_dead_code()
        module.recompile()
        module.train(self.root.training)
        return module

    def _placeholder(self, node: Node) -> None:
        if node in self.tensor_of:
            return
        held = self.program.constants.get(node.name)
        if held is not None:
            name = f"constant_{node.name}"
            self.root.register_buffer(name, held, persistent=False)
            self.new[node] = self.graph.get_attr(name)
        else:
            self.new[node] = self.graph.placeholder(node.name)

    def _tensor(self, name: str) -> torch.Tensor:
        """The cut tensor; the same object for every use."""
        if name not in self.made:
            old = self.state[name]
            new = narrow_tensor(old.detach(), self.removed.get(name, {})).clone()
            if isinstance(old, nn.Parameter) or name in self.program.folded:
                trains = old.requires_grad or name in self.program.folded
                new = nn.Parameter(new, requires_grad=trains)
            self.made[name] = new
        return self.made[name]

    def _resolve(self, node: Node) -> Node:
        if node in self.tensor_of:
            name = self.tensor_of[node]
            self._attach(name)
            return self.graph.get_attr(name)
        return self.new[node]

    def _attach(self, name: str) -> None:
        owner = self._owner(name.rpartition(".")[0])
        attribute = name.rpartition(".")[2]
        if attribute in owner._parameters or attribute in owner._buffers:
            return
        tensor = self._tensor(name)
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(attribute, tensor)
        else:
            owner.register_buffer(attribute, tensor)

    def _owner(self, path: str) -> nn.Module:
        module = self.root
        for part in [p for p in path.split(".") if p]:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            child = module._modules[part]
            assert child is not None
            module = child
        return module

    def _call(self, node: Node) -> None:
        name = operator_name(node)
        if name.startswith("_assert") or not isinstance(node.target, torch._ops.OpOverload):
            if name == "getitem" and node.args[0] in self.new:
                source = self.new[node.args[0]]  # type: ignore[index]
                self.new[node] = (
                    source
                    if source.op == "call_module"
                    else self.graph.call_function(node.target, (source, node.args[1]))  # type: ignore[arg-type]
                )
            elif not name.startswith("_assert"):
                args = torch.fx.map_arg(node.args, self._resolve)
                kwargs = torch.fx.map_arg(node.kwargs, self._resolve)
                self.new[node] = self.graph.call_function(node.target, args, kwargs)  # type: ignore[arg-type]
            return
        target, args, kwargs = rewritten(self.survivors, node)
        layer = self._layer(node, dict(zip(_names(target), args, strict=False)) | kwargs)
        if layer is not None:
            self.new[node] = layer
            return
        self.new[node] = self.graph.call_function(
            target, self._arguments(args), self._arguments(kwargs)
        )

    def _arguments(self, value: Any) -> Any:
        """Arguments in terms of the new nodes."""
        if isinstance(value, Scaled):
            product = self.graph.call_function(
                operator.mul, (self._resolve(value.size), value.after)
            )
            return self.graph.call_function(operator.floordiv, (product, value.before))
        if isinstance(value, (list, tuple)):
            return type(value)(self._arguments(v) for v in value)
        if isinstance(value, dict):
            return {key: self._arguments(v) for key, v in value.items()}
        return torch.fx.map_arg(value, self._resolve)

    def _layer(self, node: Node, bound: dict[str, Any]) -> Node | None:
        """The node as a call of an ordinary module, where its tensors make one up."""
        build = _BUILDERS.get(operator_name(node))
        if build is None:
            return None
        tensors = {
            key: self.tensor_of[bound[key]]
            for key in ("weight", "bias", "running_mean", "running_var")
            if isinstance(bound.get(key), Node) and bound[key] in self.tensor_of
        }
        path = tensors.get("weight", "").rpartition(".")[0]
        expected = {key: f"{path}.{key}" for key in tensors}
        given = {k for k in ("weight", "bias") if isinstance(bound.get(k), Node)}
        if not path or tensors != expected or not given <= set(tensors):
            return None
        if any(self.uses[name] != 1 for name in tensors.values()):
            return None
        owner, _, leaf = path.rpartition(".")
        parent = self._owner(owner)
        if leaf in parent._modules:
            return None
        layer = build(bound, {key: self._tensor(name) for key, name in tensors.items()})
        if layer is None:
            return None
        for key, name in tensors.items():
            setattr(layer, key, self._tensor(name))
        if isinstance(layer, BatchNorm):
            count = self.state.get(f"{path}.num_batches_tracked", torch.tensor(0))
            layer.num_batches_tracked = count.detach().clone()
        parent.add_module(leaf, layer)
        source = bound["input"]
        return self.graph.call_module(path, (self._resolve(source),))

    def _outputs(self, node: Node) -> Any:
        flat = [self._resolve(n) if isinstance(n, Node) else n for n in node.args[0]]  # type: ignore[union-attr]
        spec = self.program.output_spec
        return flat[0] if spec is None else torch.utils._pytree.tree_unflatten(flat, spec)


def _names(target: torch._ops.OpOverload) -> list[str]:
    return [a.name for a in target._schema.arguments if not a.kwarg_only]


def _convolution(bound: dict[str, Any], tensors: dict[str, torch.Tensor]) -> nn.Module | None:
    weight = tensors["weight"]
    kinds: dict[int, Callable[..., nn.Module]] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
    groups = bound.get("groups", 1)
    padding = bound.get("padding", 0)
    return kinds[weight.ndim](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=tuple(bound.get("stride", (1,))) if "stride" in bound else 1,
        padding=padding if isinstance(padding, (int, str)) else tuple(padding),
        dilation=tuple(bound["dilation"]) if "dilation" in bound else 1,
        groups=groups,
        bias="bias" in tensors,
        device="meta",
    )


def _linear(bound: dict[str, Any], tensors: dict[str, torch.Tensor]) -> nn.Module | None:
    rows, columns = tensors["weight"].shape
    return nn.Linear(columns, rows, bias="bias" in tensors, device="meta")


class BatchNorm(_BatchNorm):
    """Batch norm over axis 1 of an input with any number of axes."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Every shape that the graph produces is right by construction."""


def _batch_norm(bound: dict[str, Any], tensors: dict[str, torch.Tensor]) -> nn.Module | None:
    if set(tensors) != {"weight", "bias", "running_mean", "running_var"}:
        return None
    return BatchNorm(
        tensors["weight"].shape[0], eps=bound["eps"], momentum=bound["momentum"], device="meta"
    )


_BUILDERS = {
    "conv1d": _convolution,
    "conv2d": _convolution,
    "conv3d": _convolution,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
}
