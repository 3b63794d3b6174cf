"""Where the channels of every group are in the exported graph of the dense network.

The labels that found the groups (`randprune.graph`) also say which positions of which value in the
graph belong to which channel. From them come the *sites*: the places where a layer reads channels
of a group. Data-driven criteria look at a network only there, so that concatenations, flattening,
grouped convolutions and residual stages need no case of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from randprune.errors import UnsupportedModelError
from randprune.graph.fold import fold_weights
from randprune.graph.program import Program, export_program
from randprune.graph.propagate import Propagation, propagate
from randprune.graph.rules import arguments, concrete_shape, module_path, operator_name
from randprune.lineage import named_tensors
from randprune.space import IntArray, Space

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
BATCH_NORMS = ("batch_norm", "_native_batch_norm_legit_no_training")

# torch.export fixes a size of one, so that graphs with a free batch size are made from two images.
_BATCH = 2

# Operators that may hand out their operand itself, although their schema does not say so.
_MAY_ALIAS = frozenset(
    ("reshape", "flatten", "unflatten", "contiguous", "dropout", "feature_dropout", "to", "getitem",
     "alpha_dropout", "type_as", "view_as", "expand_as", "ravel", "movedim", "chunk", "split",
     "tensor_split", "squeeze", "unsqueeze", "float", "detach", "alias", "positive", "conj")
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One call of the graph, with the nodes that its arguments stand for.

    `writes`: whether it writes into memory that other nodes read; all others are out of place.
    """

    node: Node
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    sources: tuple[Node, ...]
    writes: bool = False

    def call(self, value: Callable[[Node], Any]) -> Any:
        """The result, with the values that `value` gives for its sources."""
        args = torch.fx.map_arg(self.args, value)
        return self.target(*args, **torch.fx.map_arg(self.kwargs, value))


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A layer that reads channels of groups.

    Attributes:
        name: of the graph's node, the same in every export of the network.
        layer: qualified name of the layer, for messages.
        operator: e.g. "conv2d", "linear".
        node: the call; `source` is the value that it reads along `axis`, `weight` what it
            multiplies that with.
        members: group number -> positions along `axis`, int64 (width, multiplicity).
        batch_axis: the axis of `source` that grows with the batch.
        rows: all channels read here, of any group or none, int64 (channels, multiplicity); None
            where they have different multiplicities.
    """

    name: str
    layer: str
    operator: str
    node: Node
    source: Node
    weight: Node
    axis: int
    batch_axis: int
    members: Mapping[int, IntArray]
    rows: IntArray | None

    def maps(self, values: Tensor) -> Tensor:
        """What the layer reads as (B, positions along `axis`, everything else)."""
        moved = values.movedim((self.batch_axis, self.axis), (0, 1))
        return moved.reshape(*moved.shape[:2], -1)


class ChannelGraph:
    """The dense network as steps without side effects, its sites, and its norms.

    Args:
        model: the dense network in evaluation mode; left untouched.
        space: its channel groups.
        batch: the batch size to fix; None leaves it free, where the forward does.

    Attributes:
        steps: all calls, in order; in-place operators are replaced by their out-of-place forms
            where that is possible.
        sites: in the order of execution.
        tensors: every parameter and buffer by name, in the form in which the network is cut.
        norm_behind: weight of a layer -> weight of the batch norm that alone reads its output.
        fixed_batch: the only batch size that the graph runs with; None where it is free.
        bytes_per_image: memory of all values together.

    Raises:
        UnsupportedModelError: several inputs, or channels of a group that are read where no site
            could be found.
    """

    def __init__(self, model: nn.Module, space: Space, batch: int | None = None) -> None:
        if len(space.inputs) != 1:
            raise UnsupportedModelError(
                f"{space.model} was traced with {len(space.inputs)} input tensors. Criteria that "
                "look at data need a network with one; use 'l1', 'l2' or 'geometric_median'."
            )
        self.space = space
        program, found, self.tensors = dense_program(model, space, batch)
        self.program = program
        self.nodes: tuple[Node, ...] = tuple(program.graph.nodes)
        self._names = {n: program.tensors[n.name] for n in self.nodes if n.name in program.tensors}
        self.input = next(
            n
            for n in self.nodes
            if n.op == "placeholder" and n not in self._names and n.name not in program.constants
        )
        size = self.input.meta["val"].shape[0]
        self.fixed_batch: int | None = size if isinstance(size, int) else None
        self.steps, aliases = _steps(self.nodes)
        output = next(n for n in self.nodes if n.op == "output")
        first = next(n for n in tree_leaves(output.args) if isinstance(n, Node))
        self.output = aliases.get(first, first)
        self.sites = _sites(self.steps, found, space)
        _check_complete(space, self.sites)
        self.norm_behind = self._norms()
        self.bytes_per_image = sum(_bytes(step.node) for step in self.steps) // (batch or _BATCH)

    def constant(self, node: Node) -> Any:
        """The value of a node that no input reaches directly: a parameter, buffer or constant."""
        if node in self._names:
            return self.tensors[self._names[node]]
        if node.op == "get_attr":
            return getattr(self.program.module, str(node.target))
        return self.program.constants[node.name]

    def tensor_name(self, node: Any) -> str:
        """The parameter or buffer that a node stands for; "" for anything else."""
        return self._names.get(node, "")

    def run(
        self,
        images: Tensor,
        *,
        tensors: Mapping[str, Tensor] | None = None,
        visit: Callable[[Site, Tensor, Tensor], None] | None = None,
        keep: frozenset[Node] = frozenset(),
    ) -> tuple[Tensor, dict[Node, Any]]:
        """The network's first output on a batch, and the values of the nodes in `keep`.

        Args:
            images: (B, ...) in the network's dtype, on its device.
            tensors: parameters that replace the network's own, by name.
            visit: called at each site with what the layer reads and its weight.
        """
        replaced = tensors or {}
        at = {site.node: site for site in self.sites} if visit else {}
        last = {source: step.node for step in self.steps for source in step.sources}
        values: dict[Node, Any] = {self.input: images}

        def value(node: Node) -> Any:
            if node in values:
                return values[node]
            name = self._names.get(node, "")
            return replaced[name] if name in replaced else self.constant(node)

        for step in self.steps:
            site = at.get(step.node)
            if site is not None and visit is not None:
                visit(site, value(site.source), value(site.weight))
            values[step.node] = step.call(value)
            for source in step.sources:
                if last[source] is step.node and source not in keep and source is not self.output:
                    values.pop(source, None)
        return values[self.output], {node: values[node] for node in keep if node in values}

    def _norms(self) -> dict[str, str]:
        readers: dict[Node, list[Step]] = {}
        for step in self.steps:
            for source in step.sources:
                readers.setdefault(source, []).append(step)
        found: dict[str, str] = {}
        for step in self.steps:
            name = operator_name(step.node)
            if name not in (*CONVOLUTIONS, *TRANSPOSED, "linear"):
                continue
            weight = self.tensor_name(arguments(step.node)["weight"])
            behind = readers.get(step.node, [])
            if not weight or len(behind) != 1 or operator_name(behind[0].node) not in BATCH_NORMS:
                continue
            bound = arguments(behind[0].node)
            gamma = self.tensor_name(bound["weight"])
            if gamma and behind[0].args[0] is step.node:
                found[weight] = gamma
        return found


def dense_program(
    model: nn.Module, space: Space, batch: int | None = None
) -> tuple[Program, Propagation, dict[str, Tensor]]:
    """Exported graph with labels, and detached tensors by name, in the form that is cut.

    `batch`: the batch size to fix; None leaves it free, where the forward does.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs = tuple(
        torch.zeros((batch or _BATCH, *shape[1:]), dtype=getattr(torch, dtype), device=device)
        for shape, dtype in space.inputs
    )
    program = export_program(model, inputs, dynamic_batch=batch is None)
    state = named_tensors(model)
    if space.as_graph:
        # Emitted networks have tensors of their own (folded kernels), which the slots name.
        program = fold_weights(program, state)
        state = {**state, **program.folded}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    found = propagate(program, shapes, as_graph=space.as_graph, allow=space.allow)
    return program, found, {name: tensor.detach() for name, tensor in state.items()}


def dense_tensors(model: nn.Module, space: Space) -> dict[str, Tensor]:
    """Every parameter and buffer by name, detached, in the form in which the network is cut."""
    if space.as_graph:
        return dense_program(model, space)[2]
    return {name: tensor.detach() for name, tensor in named_tensors(model).items()}


def _steps(nodes: tuple[Node, ...]) -> tuple[tuple[Step, ...], dict[Node, Node]]:
    """All calls, out of place, and which node holds a value after in-place writes to it.

    A write to x makes every later reader of x read the result instead. Where a view of x is read
    after the write, that is not enough: such a write stays in place.
    """
    order = {node: number for number, node in enumerate(nodes)}
    now: dict[Node, Node] = {}
    family: dict[Node, set[Node]] = {}
    steps: list[Step] = []
    for node in nodes:
        if node.op != "call_function" or operator_name(node).startswith("_assert"):
            continue
        args = torch.fx.map_arg(node.args, lambda n: now.get(n, n))
        kwargs = dict(torch.fx.map_arg(node.kwargs, lambda n: now.get(n, n)))
        leaves = tree_leaves((args, kwargs))
        sources = tuple(dict.fromkeys(n for n in leaves if isinstance(n, Node)))
        written = _written(node)
        target: Any = node.target
        if written is not None:
            relatives = family.get(written, set()) - {written}
            viewed = any(order[user] > order[node] for r in relatives for user in r.users)
            target = None if viewed else _out_of_place(node)
        call: Any = target or node.target
        steps.append(Step(node, call, args, kwargs, sources, writes=target is None))
        if target is None or _may_alias(node):
            members = {node}.union(*(family.get(s, {s}) for s in sources))
            family.update(dict.fromkeys(members, members))
        elif written is not None:
            now.update({old: node for old, new in now.items() if new is written})
            now[written] = node
    return tuple(steps), now


def _written(node: Node) -> Node | None:
    """The operand that an in-place operator writes to, None for all others."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return None
    first = node.args[0] if node.args else None
    return first if isinstance(first, Node) else None


def _out_of_place(node: Node) -> Any:
    """The operator that returns what this one writes; None where there is none."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    name = target._schema.name.split("::")[1]
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    found = name.endswith("_") and packet is not None and target._overloadname in packet.overloads()
    return getattr(packet, target._overloadname) if found else None


def _may_alias(node: Node) -> bool:
    target = node.target
    if operator_name(node) in _MAY_ALIAS:
        return True
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return any(r.alias_info is not None for r in target._schema.returns)


def _sites(steps: tuple[Step, ...], found: Propagation, space: Space) -> tuple[Site, ...]:
    group_of, channel_of = _ownership(found, space)
    sites: list[Site] = []
    for step in steps:
        node = step.node
        read = _read(node, found)
        if read is None:
            continue
        place, axis, weight_place = read
        original = node.args[place]
        assert isinstance(original, Node)
        labels = found.values[original].axes[axis]
        if labels is None:
            continue
        roots = found.labels.find(labels)
        groups = np.where(roots >= 0, group_of[np.maximum(roots, 0)], -1)
        if not (groups >= 0).any():
            continue
        members = {
            int(g): _places(groups == g, channel_of[np.maximum(roots, 0)], space, int(g), node)
            for g in np.unique(groups[groups >= 0])
        }
        weight = step.args[weight_place]
        sites.append(
            Site(node.name, _layer(node), operator_name(node), node, step.args[place], weight,
                 axis, batch_axis(original) or 0, members, _rows(roots))
        )  # fmt: skip
    return tuple(sites)


def _ownership(found: Propagation, space: Space) -> tuple[IntArray, IntArray]:
    """For every label's representative the number of its group and its channel there, or -1."""
    axes = {(axis.tensor, axis.dim): axis for axis in found.axes}
    group_of = np.full(len(found.labels), -1, dtype=np.int64)
    channel_of = np.full(len(found.labels), -1, dtype=np.int64)
    for number, group in enumerate(space.groups):
        for slot in group.slots:
            axis = axes.get((slot.tensor, slot.dim))
            if axis is None or int(slot.index.max()) >= axis.size:
                raise UnsupportedModelError(
                    f"The exported graph has no axis {slot.dim} of {slot.tensor!r}: the space was "
                    "traced from another network or another torch version. Trace again."
                )
            roots = found.labels.find(axis.start + slot.index.reshape(-1))
            group_of[roots] = number
            channel_of[roots] = np.repeat(np.arange(group.width), slot.index.shape[1])
    return group_of, channel_of


def _read(node: Node, found: Propagation) -> tuple[int, int, int] | None:
    """(place of the activation, its contracted axis, place of the weight); None for others."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    name = operator_name(node)
    if name in (*CONVOLUTIONS, *TRANSPOSED, "linear"):
        x, w = (found.context.value(argument) for argument in node.args[:2])
        if x is None or w is None or x.const or not w.const:
            return None
        if name == "linear":
            return 0, x.ndim - 1, 1
        bound = arguments(node)
        groups = int(bound["groups"])
        transposed = name in TRANSPOSED or bool(bound.get("transposed"))
        depthwise = w.shape[0] == groups if transposed else w.shape[1] == 1
        if groups > 1 and depthwise:
            return None
        return 0, x.ndim - (w.ndim - 2) - 1, 1
    if name in ("mm", "bmm", "matmul", "addmm", "baddbmm"):
        start = 1 if name in ("addmm", "baddbmm") else 0
        a, b = (found.context.value(argument) for argument in node.args[start : start + 2])
        if a is None or b is None or a.const == b.const:
            return None
        if b.const:
            return start, a.ndim - 1, start + 1
        return start + 1, max(b.ndim - 2, 0), start
    return None


def _places(
    own: np.ndarray[Any, np.dtype[np.bool_]], channels: IntArray, space: Space, g: int, node: Node
) -> IntArray:
    positions = np.flatnonzero(own)
    order = np.argsort(channels[positions], kind="stable")
    counts = np.bincount(channels[positions], minlength=space.groups[g].width)
    if len(set(counts.tolist())) != 1:
        raise UnsupportedModelError(
            f"{_layer(node)} reads the channels of group {space.groups[g].name!r} unevenly "
            f"({counts.min()} to {counts.max()} times). Freeze that layer, or use a criterion "
            "that looks at weights alone."
        )
    table: IntArray = positions[order].reshape(space.groups[g].width, -1).astype(np.int64)
    return table


def _rows(roots: IntArray) -> IntArray | None:
    """Positions of one class in one row, rows by first position; fixed ones stand alone."""
    alone = np.where(roots < 0, -2 - np.arange(len(roots)), roots)
    _, first, inverse, counts = np.unique(
        alone, return_index=True, return_inverse=True, return_counts=True
    )
    if len(set(counts.tolist())) != 1:
        return None
    order = np.lexsort((np.arange(len(roots)), first[inverse]))
    table: IntArray = order.reshape(len(counts), -1).astype(np.int64)
    return table


def _check_complete(space: Space, sites: tuple[Site, ...]) -> None:
    for number, group in enumerate(space.groups):
        wanted = len({slot.tensor for slot in group.with_role("in")})
        seen = sum(number in site.members for site in sites)
        if seen < wanted:
            raise UnsupportedModelError(
                f"Group {group.name!r} is read by {wanted} layers, of which {seen} were found in "
                "the exported graph. Freeze that layer, or use a criterion that looks at weights "
                "alone ('l1', 'l2', 'geometric_median')."
            )


def batch_axis(node: Node) -> int | None:
    """The one axis of a node's value whose size depends on that of the batch, None if not one."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    free = [d for d, size in enumerate(value.shape) if not isinstance(size, int)]
    return free[0] if len(free) == 1 else None


def _layer(node: Node) -> str:
    return module_path(node) or node.name


def _bytes(node: Node) -> int:
    values = [v for v in tree_leaves(node.meta.get("val")) if isinstance(v, Tensor)]
    return sum(int(np.prod(concrete_shape(v))) * v.element_size() for v in values)
