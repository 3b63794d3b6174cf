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

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from randprune.errors import UnsupportedModelError
from randprune.graph.emit import emit
from randprune.graph.execute import Execution
from randprune.graph.layers import CONVOLUTIONS, Norm, norm_behind
from randprune.graph.program import in_mode, private_copy
from randprune.graph.rules import concrete_shape
from randprune.graph.sites import ChannelGraph, Site, batch_axis
from randprune.graph.steps import Step, Steps, step
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
        steps: to run again; those of `border`, `sizes` and `less` have no sources, since their
            values come from elsewhere.
        border: values of the dense run that the others read.
        sizes: numbers in the graph that depend on the batch size.
        less: whose dense output is kept, because a contribution is subtracted from it.
        cleared: values that have the channel set to zero -> the site that reads them first.
        bytes: of the largest value of one image.
    """

    steps: Steps
    border: frozenset[Node]
    sizes: frozenset[Node]
    less: frozenset[Node]
    cleared: Mapping[Node, Site]
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
        self.steps = Steps(self._folded(), [graph.output])
        self._plans = [self._plan(number) for number in range(len(graph.space.groups))]
        kept = (plan for plan in self._plans if plan is not None)
        self._kept = frozenset(node for plan in kept for node in plan.border | plan.less)
        size = sum(map(_bytes_per_image, self._kept))
        self.images_at_once = max(1, min(_IMAGES, _KEPT_BYTES // max(1, size)))
        self._values: dict[Node, Any] = {}
        self._images, self._device = 0, "cpu"

    def dense(self, images: Tensor) -> Tensor:
        """The network's outputs; what `outputs` needs of its values is kept."""
        if images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        self._images, self._device = len(images), images.device.type
        run = self._run(self.steps, {self.graph.input: images})
        run.pin(*self._kept)
        outputs: Tensor = run.finish()
        self._values = {node: run.values[node] for node in self._kept}
        return outputs

    def reaches(self, group: int) -> bool:
        """Whether the network's output depends on the channels of a group."""
        return self._plans[group] is not None

    def pieces(self, group: int) -> Iterator[Tensor]:
        """The channels of a group, int64 (V,), as many at once as fit into memory."""
        plan = self._plans[group]
        each = 0 if plan is None else plan.bytes
        limit = _CPU_BYTES if self._device == "cpu" else _GPU_BYTES
        at_once = max(1, limit // max(1, each * self._images))
        yield from torch.split(torch.arange(self.graph.space.groups[group].width), at_once)

    def outputs(self, group: int, channels: Tensor) -> Tensor:
        """The network's first output (V, B, ...) without each of the channels (V,) of a group.

        Runs on the images that `dense` saw last.

        Raises:
            UnsupportedModelError: values that cannot be computed for several batches at once.
        """
        plan = self._plans[group]
        if plan is None or any(step.joint for step in plan.steps.order):
            raise UnsupportedModelError(
                "Nothing depends on these channels, or what does is written in place through views."
            )
        count = len(channels)
        instead: dict[Node, Callable[[], Any]] = {
            **{n: partial(_stack, self._values[n], n, count) for n in plan.border},
            **{n: partial(self._size, n, count) for n in plan.sizes},
        }
        for node in plan.less:
            site = self._site_at[node]
            dense, source = self._values[node], self._values[site.source]
            places = site.members[group][channels.numpy()]
            instead[node] = partial(_less, self.steps.at[node], site, dense, source, places)
        run = self._run(plan.steps, {}, instead)
        for node, site in plan.cleared.items():
            places = site.members[group][channels.numpy()]
            run.amend[node] = partial(_cleared, site, places, node in plan.border)
        result: Tensor = run.finish()
        return torch.unflatten(result, 0, (count, self._images))

    def _run(
        self,
        steps: Steps,
        values: Mapping[Node, Any],
        instead: Mapping[Node, Callable[[], Any]] | None = None,
    ) -> Execution:
        return Execution(self.graph.graph, steps, self.graph.tensors, values, instead=instead)

    def _size(self, node: Node, count: int) -> int:
        """A size in the graph that depends on the batch size, for `count` stacked batches."""
        return int(node.meta["val"].node.expr.xreplace({self._symbol: count * self._images}))

    # -- preparation ---------------------------------------------------------------------------

    def _folded(self) -> Iterator[Step]:
        """The graph's steps, weights in place, each batch norm merged into the layer before it."""
        graph = self.graph.graph
        layers: dict[Node, tuple[Step, Norm]] = {}
        for each in graph.steps.order:
            if each.operator in (*CONVOLUTIONS, "linear") and self._constant(each):
                ready = self._with_tensors(each)
                behind = norm_behind(graph, each)
                if behind and behind[0].operator == "batch_norm" and behind[1].mean:
                    layers[behind[0].node] = ready, behind[1]
                else:
                    yield ready
            elif each.node in layers:
                layer, norm = layers[each.node]
                site = self._site_at.pop(layer.node, None)
                if site is not None:
                    self._site_at[each.node] = site
                yield self._merged(layer, norm, each.node)
            else:
                yield each

    def _constant(self, layer: Step) -> bool:
        """Whether a layer's weight and bias are tensors of the network as they stand."""
        bound = layer.bound()
        found = [bound[key] for key in ("weight", "bias") if bound[key] is not None]
        return all(self.graph.graph.tensor_name(node) for node in found)

    def _with_tensors(self, layer: Step) -> Step:
        """A layer with its weight and bias in its arguments, by name."""
        bound = layer.bound()
        for key in ("weight", "bias"):
            if bound[key] is not None:
                bound[key] = self.graph.constant(bound[key])
        if bound["weight"].ndim == 4:
            bound["weight"] = bound["weight"].contiguous(memory_format=torch.channels_last)
        return step(layer.node, layer.target, (), bound)

    def _merged(self, layer: Step, norm: Norm, node: Node) -> Step:
        """One layer that gives the value of the batch norm behind it."""
        bound = dict(layer.kwargs)
        values = norm.values(self.graph.tensors)
        bound["weight"], bound["bias"] = values.folded(bound["weight"], bound["bias"])
        return step(node, layer.target, (), bound, name=layer.operator)

    def _plan(self, group: int) -> _Plan | None:
        """What to run again without channels of a group; None where that changes no output."""
        dirty: set[Node] = set()
        again: list[Step] = []
        for each in self.steps.order:
            site = self._site_at.get(each.node)
            reads = site is not None and group in site.members
            if reads or any(source in dirty for source in each.sources):
                dirty.add(each.node)
                again.append(each)
        if self.graph.output not in dirty:
            return None
        made = {*self.steps.at, self.graph.input}
        clean = {n for each in again for n in each.sources if n in made and n not in dirty}
        sizes = frozenset(n for n in clean if isinstance(n.meta.get("val"), torch.SymInt))
        border = frozenset(clean - sizes)
        less: set[Node] = set()
        cleared: dict[Node, Site] = {}
        for each in again:
            site = self._site_at.get(each.node)
            if site is None or group not in site.members:
                continue
            if site.source in border and _subtractable(each, site):
                less.add(each.node)
            else:
                # Others may read the cleared value too: whatever they make of these channels only
                # reaches layers that do not look at them either.
                cleared.setdefault(site.source, site)
        given = [step(node, _elsewhere) for node in clean]
        rest = (step(e.node, _elsewhere) if e.node in less else e for e in again)
        largest = max(_bytes_per_image(each.node) for each in again)
        steps = Steps([*given, *rest], [self.graph.output])
        return _Plan(steps, border, sizes, frozenset(less), cleared, largest)


def _elsewhere() -> Any:
    raise AssertionError("the value of this step is given")


def _subtractable(layer: Step, site: Site) -> bool:
    """Whether `_less` knows the layer."""
    weight = layer.kwargs.get("weight")
    if not isinstance(weight, Tensor) or site.batch_axis != 0 or batch_axis(layer.node) != 0:
        return False
    if site.operator == "linear":
        return True
    plain = site.operator in ("conv1d", "conv2d", "conv3d") and int(layer.kwargs["groups"]) == 1
    return plain and site.axis == 1


def _less(
    layer: Step, site: Site, dense: Tensor, source: Tensor, places: np.ndarray[Any, Any]
) -> Tensor:
    """The layer's dense output less the contribution of each channel, (V * B, ...).

    `places` (V, multiplicity): where the channels are in what the layer reads.
    """
    weight: Tensor = layer.kwargs["weight"]
    count, multiplicity = places.shape
    index = torch.from_numpy(places.reshape(-1)).to(source.device)
    read = source.index_select(site.axis, index)
    columns = torch.unflatten(weight.index_select(1, index), 1, (count, multiplicity))
    columns = columns.transpose(0, 1)
    if site.operator == "linear":
        rows = torch.unflatten(read, -1, (count, multiplicity))
        part = torch.einsum("b...vm,vom->vb...o", rows, columns)
        return (dense - part).flatten(0, 1)
    call = {**layer.kwargs, "input": read, "weight": columns.flatten(0, 1), "bias": None}
    stacked = layer.target(**{**call, "groups": count})
    part = torch.unflatten(stacked, 1, (count, -1)).transpose(0, 1)
    if dense.ndim == 4:
        # Written in the order in which the next convolution reads it.
        shape = (count, len(dense), *dense.shape[2:], dense.shape[1])
        out = dense.new_empty(shape).movedim(-1, 2)
        return torch.sub(dense, part, out=out).flatten(0, 1)
    return (dense - part).flatten(0, 1)


def _cleared(site: Site, places: np.ndarray[Any, Any], shared: bool, stacked: Tensor) -> Tensor:
    """The value with variant v's channel zero: positions places[v] along the site's axis.

    In place, but for values that others hold (`shared`), or whose positions share memory.
    """
    overlap = any(s == 0 and n > 1 for s, n in zip(stacked.stride(), stacked.shape, strict=True))
    stacked = stacked.clone() if shared or overlap else stacked
    axis = site.axis + (site.axis > site.batch_axis)
    view = torch.unflatten(stacked, site.batch_axis, (len(places), -1))
    view = view.movedim((site.batch_axis, axis), (0, 1))
    variants = torch.arange(len(places), device=stacked.device)[:, None]
    view[variants, torch.from_numpy(places).to(stacked.device)] = 0.0
    return stacked


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
