"""The network's outputs without a channel, for every channel of a group, at a part of the cost.

Taking a channel away changes nothing before the first layer that reads it, and nothing beside the
values that depend on that layer. So the dense network runs once and keeps the values at the border;
then, for each group, only the dependent part runs again, for several channels at once, stacked
along the batch. A layer that reads a clean value need not even run: its output without channel j is
the dense output less the contribution of channel j. Batch norms are folded into the layers before
them.

Known shortcomings: needs an export with a free batch size, and values that hold the batch along one
axis. `Removal` does not prove that: compare with `Masked` before relying on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from randprune.errors import UnsupportedModelError
from randprune.graph.emit import emit
from randprune.graph.program import in_mode, private_copy
from randprune.graph.rules import arguments, concrete_shape, operator_name
from randprune.graph.sites import CONVOLUTIONS, ChannelGraph, Site, Step, batch_axis
from randprune.lineage import named_tensors
from randprune.space import Space

# Bytes of the largest value of one stacked batch: on a processor it should stay in the cache.
_CPU_BYTES = 4 << 20
_GPU_BYTES = 1 << 28

# Images whose dense values are kept at once: few, so that several channels go together.
_IMAGES = 32
_KEPT_BYTES = 1 << 30


class Masked:
    """The plain way: the whole network, with the weights that read a channel set to zero."""

    def __init__(self, model: nn.Module, space: Space) -> None:
        self.space = space
        dense = emit(model, space, space.dense) if space.as_graph else private_copy(model)
        self.network = in_mode(dense)
        self._tensors = named_tensors(self.network)

    def outputs(self, images: Tensor, group: int | None = None, channel: int = 0) -> Tensor:
        """The network's first output without one channel of a group; None: the dense one's."""
        slots = () if group is None else self.space.groups[group].with_role("in")
        saved = {slot.tensor: self._tensors[slot.tensor].detach().clone() for slot in slots}
        with torch.no_grad():
            for slot in slots:
                tensor = self._tensors[slot.tensor]
                places = torch.from_numpy(slot.index[channel]).to(tensor.device)
                tensor.index_fill_(slot.dim, places, 0.0)
            try:
                result = self.network(images)
            finally:
                for name, tensor in saved.items():
                    self._tensors[name].copy_(tensor)
        first: Tensor = next(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return first


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What depends on the channels of one group.

    Attributes:
        steps: to run again, in order.
        border: values of the dense run that these steps read.
        less: steps whose dense output is kept, because a contribution is subtracted from it.
        last: source -> the last step that needs it.
        bytes: of the largest value of one image.
    """

    steps: tuple[Step, ...]
    border: frozenset[Node]
    less: frozenset[Node]
    last: Mapping[Node, Node]
    bytes: int


class Removal:
    """Runs the dense network, and then its parts without single channels; inference only.

    Args:
        graph: the network's, with a free batch size.

    Attributes:
        images_at_once: how many images `dense` should get, so that what is kept fits into memory.

    Raises:
        UnsupportedModelError: the batch size is fixed.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        if graph.fixed_batch is not None:
            raise UnsupportedModelError(
                f"The forward fixes the batch size at {graph.fixed_batch}: channels cannot be "
                "removed in stacked batches."
            )
        self.graph = graph
        self._symbol = graph.input.meta["val"].shape[0].node.expr
        self._site_at: dict[Node, Site] = {site.node: site for site in graph.sites}
        self.steps = tuple(self._folded())
        self._plans = [self._plan(number) for number in range(len(graph.space.groups))]
        self._kept = frozenset(node for p in self._plans for node in p.border | p.less)
        kept = sum(map(_bytes_per_image, self._kept))
        self.images_at_once = max(1, min(_IMAGES, _KEPT_BYTES // max(1, kept)))
        self._values: dict[Node, Any] = {}
        self._images, self._device = 0, "cpu"

    def dense(self, images: Tensor) -> Tensor:
        """The network's outputs; what `outputs` needs of its values is kept."""
        if images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        self._images, self._device = len(images), images.device.type
        last = {source: step.node for step in self.steps for source in step.sources}
        values: dict[Node, Any] = {self.graph.input: images}

        def value(node: Node) -> Any:
            return values[node] if node in values else self.graph.constant(node)

        for step in self.steps:
            values[step.node] = step.call(value)
            for source in step.sources:
                done = last[source] is step.node and source not in self._kept
                if done and source is not self.graph.output:
                    values.pop(source, None)
        self._values = {node: values[node] for node in self._kept}
        outputs: Tensor = values[self.graph.output]
        return outputs

    def reaches(self, group: int) -> bool:
        """Whether the network's output depends on the channels of a group."""
        return bool(self._plans[group].steps)

    def pieces(self, group: int) -> Iterator[Tensor]:
        """The channels of a group, int64 (V,), as many at once as fit into memory."""
        limit = _CPU_BYTES if self._device == "cpu" else _GPU_BYTES
        at_once = max(1, limit // max(1, self._plans[group].bytes * self._images))
        yield from torch.split(torch.arange(self.graph.space.groups[group].width), at_once)

    def outputs(self, group: int, channels: Tensor) -> Tensor:
        """The network's first output (V, B, ...) without each of the channels (V,) of a group.

        Runs on the images that `dense` saw last.

        Raises:
            UnsupportedModelError: values that cannot be computed for several batches at once.
        """
        plan = self._plans[group]
        if not plan.last:
            raise UnsupportedModelError(
                "What depends on these channels is written in place, through views."
            )
        count = len(channels)
        values: dict[Node, Any] = {}
        stacked: dict[Node, Any] = {}
        cleared: set[Node] = set()

        def value(node: Node) -> Any:
            if node in values:
                return values[node]
            if isinstance(node.meta.get("val"), torch.SymInt):
                return self._size(node, count)
            if node not in plan.border:
                return self.graph.constant(node)
            if node not in stacked:
                stacked[node] = _stack(self._values[node], node, count)
            return stacked[node]

        for step in plan.steps:
            site = self._site_at.get(step.node)
            places = None if site is None else site.members.get(group)
            if step.node in plan.less:
                assert site is not None
                assert places is not None
                dense, source = self._values[step.node], self._values[site.source]
                values[step.node] = _less(step, site, dense, source, places[channels.numpy()])
            else:
                if site is not None and places is not None and site.source not in cleared:
                    # Others may read the cleared value too: whatever they make of these channels
                    # only reaches layers that do not look at them either.
                    read = _writable(value(site.source), site.source in plan.border)
                    (values if site.source in values else stacked)[site.source] = read
                    _clear(read, site, places[channels.numpy()])
                    cleared.add(site.source)
                values[step.node] = step.call(value)
            for source_node in step.sources:
                if plan.last[source_node] is step.node and source_node is not self.graph.output:
                    values.pop(source_node, None)
                    stacked.pop(source_node, None)
        result: Tensor = values[self.graph.output]
        return torch.unflatten(result, 0, (count, self._images))

    def _size(self, node: Node, count: int) -> int:
        """A size in the graph that depends on the batch size, for `count` stacked batches."""
        return int(node.meta["val"].node.expr.xreplace({self._symbol: count * self._images}))

    # -- preparation ---------------------------------------------------------------------------

    def _folded(self) -> Iterator[Step]:
        """The graph's steps, weights in place, each batch norm merged into the layer before it."""
        readers = Counter(source for step in self.graph.steps for source in step.sources)
        layers: dict[Node, Step] = {}
        for step in self.graph.steps:
            name = operator_name(step.node)
            if name in (*CONVOLUTIONS, "linear") and self._constant(step.node):
                ready = self._with_tensors(step)
                only = readers[step.node] == 1 and step.node is not self.graph.output
                if only and _normed(step.node):
                    layers[step.node] = ready
                else:
                    yield ready
            elif step.args and step.args[0] in layers:
                layer = layers[step.args[0]]
                site = self._site_at.pop(layer.node, None)
                if site is not None:
                    self._site_at[step.node] = site
                yield self._merged(layer, step)
            else:
                yield step

    def _constant(self, layer: Node) -> bool:
        """Whether a layer's weight and bias are tensors of the network as they stand."""
        bound = arguments(layer)
        found = [bound[key] for key in ("weight", "bias") if bound[key] is not None]
        return all(self.graph.tensor_name(node) for node in found)

    def _with_tensors(self, step: Step) -> Step:
        """A layer with its weight and bias in its arguments, by name."""
        source = step.args[0]
        bound = {**arguments(step.node), "input": source}
        for key in ("weight", "bias"):
            if bound[key] is not None:
                bound[key] = self.graph.constant(bound[key])
        if bound["weight"].ndim == 4:
            bound["weight"] = bound["weight"].contiguous(memory_format=torch.channels_last)
        return Step(step.node, step.target, (), bound, (source,))

    def _merged(self, layer: Step, norm: Step) -> Step:
        """One layer that does what the layer and the batch norm behind it do."""
        bound = dict(layer.kwargs)
        weight: Tensor = bound["weight"]
        told = arguments(norm.node)
        mean, variance = (
            self.graph.constant(told[key]).double() for key in ("running_mean", "running_var")
        )
        slope = torch.rsqrt(variance + told["eps"])
        if told["weight"] is not None:
            slope = slope * self.graph.constant(told["weight"]).double()
        bias = (-mean if bound["bias"] is None else bound["bias"].double() - mean) * slope
        if told["bias"] is not None:
            bias = bias + self.graph.constant(told["bias"]).double()
        scale = slope.reshape(-1, *[1] * (weight.ndim - 1))
        bound["weight"] = (weight.double() * scale).to(weight.dtype)
        bound["bias"] = bias.to(weight.dtype)
        return Step(norm.node, layer.target, (), bound, layer.sources)

    def _plan(self, group: int) -> _Plan:
        dirty: set[Node] = set()
        steps: list[Step] = []
        for step in self.steps:
            site = self._site_at.get(step.node)
            reads = site is not None and group in site.members
            if reads or any(source in dirty for source in step.sources):
                dirty.add(step.node)
                steps.append(step)
        if self.graph.output not in dirty:
            return _Plan((), frozenset(), frozenset(), {}, 0)
        made = {step.node for step in self.steps} | {self.graph.input}
        border = {
            source
            for step in steps
            for source in step.sources
            if source in made
            and source not in dirty
            and not isinstance(source.meta.get("val"), torch.SymInt)
        }
        less = {
            step.node
            for step in steps
            if (site := self._site_at.get(step.node)) is not None
            and group in site.members
            and site.source in border
            and _subtractable(step, site)
        }
        if any(step.writes for step in steps):
            return _Plan(tuple(steps), frozenset(), frozenset(), {}, 0)
        last = {source: step.node for step in steps for source in step.sources}
        largest = max(_bytes_per_image(step.node) for step in steps)
        return _Plan(tuple(steps), frozenset(border), frozenset(less), last, largest)


def _normed(node: Node) -> bool:
    """Whether a layer's only reader is a batch norm with statistics of its own."""
    user = next(iter(node.users))
    if operator_name(user) != "batch_norm" or user.args[0] is not node:
        return False
    bound = arguments(user)
    return not bound["training"] and bound["running_mean"] is not None


def _subtractable(step: Step, site: Site) -> bool:
    """Whether `_less` knows the layer."""
    weight = step.kwargs.get("weight")
    if not isinstance(weight, Tensor) or site.batch_axis != 0 or batch_axis(step.node) != 0:
        return False
    if site.operator == "linear":
        return True
    plain = site.operator in ("conv1d", "conv2d", "conv3d") and int(step.kwargs["groups"]) == 1
    return plain and site.axis == 1


def _less(
    step: Step, site: Site, dense: Tensor, source: Tensor, places: np.ndarray[Any, Any]
) -> Tensor:
    """The layer's dense output less the contribution of each channel, (V * B, ...).

    `places` (V, multiplicity): where the channels are in what the layer reads.
    """
    weight: Tensor = step.kwargs["weight"]
    count, multiplicity = places.shape
    index = torch.from_numpy(places.reshape(-1)).to(source.device)
    read = source.index_select(site.axis, index)
    columns = torch.unflatten(weight.index_select(1, index), 1, (count, multiplicity))
    columns = columns.transpose(0, 1)
    if site.operator == "linear":
        rows = torch.unflatten(read, -1, (count, multiplicity))
        part = torch.einsum("b...vm,vom->vb...o", rows, columns)
        return (dense - part).flatten(0, 1)
    call = {**step.kwargs, "input": read, "weight": columns.flatten(0, 1), "bias": None}
    stacked = step.target(**{**call, "groups": count})
    part = torch.unflatten(stacked, 1, (count, -1)).transpose(0, 1)
    if dense.ndim == 4:
        # Written in the order in which the next convolution reads it.
        shape = (count, len(dense), *dense.shape[2:], dense.shape[1])
        out = dense.new_empty(shape).movedim(-1, 2)
        return torch.sub(dense, part, out=out).flatten(0, 1)
    return (dense - part).flatten(0, 1)


def _clear(stacked: Tensor, site: Site, places: np.ndarray[Any, Any]) -> None:
    """Zero, in place, variant v's channel: positions places[v] along the site's axis."""
    axis = site.axis + (site.axis > site.batch_axis)
    view = torch.unflatten(stacked, site.batch_axis, (len(places), -1))
    view = view.movedim((site.batch_axis, axis), (0, 1))
    variants = torch.arange(len(places), device=stacked.device)[:, None]
    view[variants, torch.from_numpy(places).to(stacked.device)] = 0.0


def _writable(value: Tensor, shared: bool) -> Tensor:
    """The value, copied where others hold it or where positions share memory."""
    overlap = any(s == 0 and n > 1 for s, n in zip(value.stride(), value.shape, strict=True))
    return value.clone() if shared or overlap else value


def _stack(value: Any, node: Node, count: int) -> Any:
    """A value of the dense run `count` times along its batch axis; batch-free ones as they are."""
    if isinstance(value, (tuple, list)):
        raise UnsupportedModelError(f"{node.name} hands several values across the border.")
    if not isinstance(value, Tensor) or count == 1:
        return value
    axis = batch_axis(node)
    if axis is None:
        if all(isinstance(size, int) for size in node.meta["val"].shape):
            return value
        raise UnsupportedModelError(f"{node.name} holds the batch along several axes.")
    stacked = torch.stack([value] * count, dim=axis)
    return stacked.flatten(axis, axis + 1)


def _bytes_per_image(node: Node) -> int:
    """Bytes of a node's value per image of the batch of two that the graph was exported with."""
    values = [v for v in tree_leaves(node.meta.get("val")) if isinstance(v, Tensor)]
    return sum(int(np.prod(concrete_shape(v))) * v.element_size() for v in values) // 2
