"""Where the channels of every group are in the exported graph of the dense network.

The labels that found the groups (`randprune.graph`) also say which positions of which value in the
graph belong to which channel. From them come the *sites*: the places where a layer reads channels
of a group. Data-driven criteria look at a network only there, so that concatenations, flattening,
grouped convolutions and residual stages need no case of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from randprune.errors import UnsupportedModelError
from randprune.graph.execute import ExecutableGraph, Execution, Hook
from randprune.graph.fold import fold_weights
from randprune.graph.layers import LAYERS, geometry, norm_behind
from randprune.graph.program import Program, export_program
from randprune.graph.propagate import Propagation, propagate
from randprune.graph.rules import concrete_shape, module_path
from randprune.graph.steps import Step
from randprune.lineage import named_tensors
from randprune.space import IntArray, Space

# torch.export fixes a size of one, so that graphs with a free batch size are made from two images.
_BATCH = 2


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A layer that reads channels of groups.

    Attributes:
        name: of the graph's node, the same in every export of the network.
        layer: qualified name of the layer, for messages.
        step: the call; `source` is the value that it reads along `axis`, `weight` what it
            multiplies that with.
        members: group number -> positions along `axis`, int64 (width, multiplicity).
        batch_axis: the axis of `source` that grows with the batch.
        rows: all channels read here, of any group or none, int64 (channels, multiplicity); None
            where they have different multiplicities.
    """

    name: str
    layer: str
    step: Step
    source: Node
    weight: Node
    axis: int
    batch_axis: int
    members: Mapping[int, IntArray]
    rows: IntArray | None

    @property
    def operator(self) -> str:
        """E.g. "conv2d", "linear"."""
        return self.step.operator

    @property
    def node(self) -> Node:
        """Whose value the layer gives."""
        return self.step.node

    def maps(self, values: Tensor) -> Tensor:
        """What the layer reads as (B, positions along `axis`, everything else)."""
        moved = values.movedim((self.batch_axis, self.axis), (0, 1))
        return moved.reshape(*moved.shape[:2], -1)


class ChannelGraph:
    """The graph of the dense network with its sites and its norms.

    Args:
        model: the dense network in evaluation mode; left untouched.
        space: its channel groups.
        batch: the batch size to fix; None leaves it free, where the forward does.

    Attributes:
        graph: what runs evaluate.
        input, output: the nodes of its input and of its first output.
        sites: in the order of execution.
        tensors: every parameter and buffer by name, in the form in which the network is cut.
        norm_behind: weight of a layer -> weight of the batch norm that alone reads its output.
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
        self.graph = ExecutableGraph(program)
        self.input, self.output = self.graph.inputs[0], self.graph.outputs[0]
        self.sites = _sites(self.graph.steps.order, found, space)
        _check_complete(space, self.sites)
        self.norm_behind = self._norms()
        every = sum(_bytes(step.node) for step in self.graph.steps.order)
        self.bytes_per_image = every // (batch or _BATCH)

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that the graph runs with; None where it is free."""
        return self.graph.fixed_batch

    def constant(self, node: Node) -> Any:
        """The value of a node that no input reaches directly: a parameter, buffer or constant."""
        return self.graph.given(node, self.tensors)

    def run(
        self,
        images: Tensor,
        *,
        tensors: Mapping[str, Tensor] | None = None,
        visit: Callable[[Site, Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """The network's first output on a batch.

        Args:
            images: (B, ...) in the network's dtype, on its device.
            tensors: parameters that replace the network's own, by name.
            visit: called at each site with what the layer reads and its weight.
        """
        hooks: dict[Node, Hook] = {}
        if visit is not None:

            def stop(site: Site, run: Execution) -> None:
                visit(site, run.value(site.source), run.value(site.weight))

            hooks = {site.node: partial(stop, site) for site in self.sites}
        everything = {**self.tensors, **(tensors or {})}
        output: Tensor = self.graph.run(everything, [images], hooks).finish()
        return output

    def _norms(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for step in self.graph.steps.order:
            weight = self.graph.tensor_name(step.bound()["weight"]) if _is_layer(step) else ""
            behind = norm_behind(self.graph, step) if weight else None
            if behind is not None and behind[1].weight:
                found[weight] = behind[1].weight
        return found


def _is_layer(step: Step) -> bool:
    return step.operator in LAYERS


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


def _sites(steps: tuple[Step, ...], found: Propagation, space: Space) -> tuple[Site, ...]:
    group_of, channel_of = ownership(found, space)
    sites: list[Site] = []
    for step in steps:
        node = step.node
        read = _read(step, found)
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
            Site(node.name, _layer(node), step, step.args[place], weight, axis,
                 batch_axis(original) or 0, members, _rows(roots))
        )  # fmt: skip
    return tuple(sites)


def ownership(found: Propagation, space: Space) -> tuple[IntArray, IntArray]:
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


def _read(step: Step, found: Propagation) -> tuple[int, int, int] | None:
    """(place of the activation, its contracted axis, place of the weight); None for others."""
    node, name = step.node, step.operator
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    if _is_layer(step):
        x, w = (found.context.value(argument) for argument in node.args[:2])
        if x is None or w is None or x.const or not w.const:
            return None
        lie = geometry(step, w.shape[2:])
        if lie.linear:
            return 0, x.ndim - 1, 1
        if lie.depthwise(w.shape):
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
