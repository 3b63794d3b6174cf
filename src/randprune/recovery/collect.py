"""One pass of the dense network over the calibration images, for `randprune.recovery.statistics`.

Sums of rows and of their products are kept for each layer; what has been summed can be saved on the
way, so that an interrupted pass goes on and ends with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import Node

from randprune.errors import DataError
from randprune.graph.call import network_inputs
from randprune.graph.execute import Execution
from randprune.graph.trees import count_of, map_tensors
from randprune.recovery.partial import Partial
from randprune.recovery.patches import channel_rows, input_rows, sample_positions
from randprune.recovery.replay import Layer, Replay
from randprune.recovery.statistics import (
    Moments,
    SiteMoments,
    channels_last,
    readers,
    reference_replay,
    reference_tensors,
)
from randprune.space import Space

Mode = Literal["full", "channels", "none"]

POSITIONS = 64
FULL_COLUMNS = 2304
LIMIT_MIB = 2048


def collect_moments(
    model: nn.Module,
    space: Space,
    batches: Iterable[Any],
    *,
    positions: int = POSITIONS,
    seed: int = 0,
    full_columns: int = FULL_COLUMNS,
    limit_mib: int = LIMIT_MIB,
    replay: Replay | None = None,
    partial: Partial | None = None,
    tell: Callable[[int], None] | None = None,
) -> Moments:
    """Moments of what the pruned layers of the dense network read, from one pass over the data.

    Args:
        model: the dense network that was traced; left untouched.
        space: its channel groups.
        batches: what `randprune.graph.call` finds the network's inputs in, such as (images,
            labels) pairs or images alone, float32, normalised; the same ones in the same order
            where an interrupted pass goes on.
        positions: places per image and layer at which windows are sampled.
        seed: of the places.
        full_columns: most columns (input channels per group times kernel positions) for which
            the full covariance is kept; wider layers get moments between channels.
        limit_mib: MiB that all accumulators may take together; the widest layers fall back to
            moments between channels until they fit.
        replay: the network's replay where there is one already (`reference_replay`).
        partial: keeps what has been summed, for an interrupted pass to go on from.
        tell: is told after each batch how many images have been seen.

    Raises:
        DataError: no images, or values that are not finite.
        StorageError: what has been summed cannot be kept.
    """
    collection: _Collection | None = None
    for number, batch in enumerate(batches):
        inputs = network_inputs(model, batch)
        if collection is None:
            if replay is None:
                replay = reference_replay(model, space, inputs)
            generator = torch.Generator().manual_seed(seed)
            tensors = reference_tensors(model, space)
            plan = _plan(readers(replay, space), tensors, full_columns, limit_mib)
            collection = _Collection(replay, tensors, plan, positions, generator)
            if partial is not None:
                collection.go_on_from(partial)
        if number < collection.batches:
            continue
        collection.add(inputs)
        if partial is not None:
            partial.save(collection.tensors_so_far, **collection.counts)
        if tell is not None:
            tell(collection.images)
    if collection is None:
        raise DataError("No calibration images: the data is empty. Give at least a few hundred.")
    return collection.moments(space)


@dataclass(slots=True, eq=False)
class _Collection:
    """Sums at all sites, over the batches so far.

    Attributes:
        replay, tensors: of the dense network.
        plan: what is kept at each site.
        positions: places per image and layer.
        generator: draws the places.
    """

    replay: Replay
    tensors: Mapping[str, Tensor]
    plan: Mapping[str, Mode]
    positions: int
    generator: torch.Generator
    sums: dict[str, _Sums] = field(default_factory=dict)
    images: int = 0
    batches: int = 0
    _seen: set[str] = field(default_factory=set)

    def add(self, inputs: tuple[Any, ...]) -> None:
        """Send one batch through the network, and sum what its layers read."""
        self._seen.clear()
        with torch.no_grad():
            inputs = map_tensors(channels_last, inputs)
            self.replay.run(self.tensors, inputs, self._before).finish()
        self.images += count_of(inputs)
        self.batches += 1

    def _before(self, node: Node, run: Execution) -> None:
        layer = self.replay.layers[node]
        mode = self.plan.get(layer.site, "none")
        if mode == "none" or layer.site in self._seen:
            return
        self._seen.add(layer.site)
        source = run.value(self.replay.source(node))
        if mode == "channels":
            rows = channel_rows(layer, source, self.positions, self.generator)
        else:
            places = sample_positions(layer, source, self.positions, self.generator)
            rows = input_rows(layer, source, places)
        self.sums.setdefault(layer.site, _Sums.like(rows)).add(rows)

    @property
    def counts(self) -> dict[str, Any]:
        """What `go_on_from` needs besides the tensors, JSON-ready."""
        rows = {site: total.rows for site, total in self.sums.items()}
        return {"images": self.images, "batches": self.batches, "rows": rows}

    def tensors_so_far(self) -> dict[str, Tensor]:
        """The sums, and the state of the generator."""
        found = {"generator": self.generator.get_state()}
        for site, total in self.sums.items():
            found |= {f"first/{site}": total.first, f"second/{site}": total.second}
        return found

    def go_on_from(self, partial: Partial) -> None:
        """Take what an earlier process has summed, if it has."""
        found, head = partial.read(), partial.head
        if not found:
            return
        for site, rows in head["rows"].items():
            self.sums[site] = _Sums(found[f"first/{site}"], found[f"second/{site}"], rows)
        self.generator.set_state(found["generator"])
        self.images, self.batches = head["images"], head["batches"]

    def moments(self, space: Space) -> Moments:
        """Means and covariances.

        Raises:
            DataError: they are not finite.
        """
        sites = {
            name: total.moments(self.plan[name] == "channels") for name, total in self.sums.items()
        }
        for name, site in sites.items():
            if not bool(torch.isfinite(site.covariance).all()):
                raise DataError(
                    f"The inputs of layer {name!r} are not finite on the calibration images: check "
                    "the normalisation of the images and the weights."
                )
        known = readers(self.replay, space)
        layers = {layer.weight: layer for layer in known if layer.site in sites}
        shapes = {name: tuple(self.tensors[name].shape) for name in layers}
        return Moments(layers, sites, shapes, self.images, space.fingerprint)


def _plan(
    layers: Iterable[Layer],
    tensors: Mapping[str, Tensor],
    full_columns: int,
    limit_mib: int,
) -> dict[str, Mode]:
    """What is kept at each site; the widest sites step down first."""
    channels: dict[str, int] = {}
    sites: dict[str, Layer] = {}
    for layer in layers:
        channels[layer.site] = int(tensors[layer.weight].shape[layer.input_dim])
        sites.setdefault(layer.site, layer)
    modes: dict[str, Mode] = {}
    for name, layer in sites.items():
        wide = layer.taps > 1 and channels[name] * layer.taps > full_columns
        modes[name] = "channels" if wide else "full"

    def size(name: str) -> int:
        columns = {"full": channels[name] * sites[name].taps, "channels": channels[name]}
        return 8 * sites[name].groups * columns.get(modes[name], 0) ** 2

    while sum(map(size, sites)) > limit_mib << 20:
        widest = max(sites, key=size)
        step_down = modes[widest] == "full" and sites[widest].taps > 1
        modes[widest] = "channels" if step_down else "none"
    return modes


@dataclass(slots=True, eq=False)
class _Sums:
    """Running sums of rows and of their products; float32 products, float64 sums."""

    first: Tensor
    second: Tensor
    rows: int

    @classmethod
    def like(cls, rows: Tensor) -> _Sums:
        groups, _, columns = rows.shape
        first = torch.zeros(groups, columns, dtype=torch.float64, device=rows.device)
        return cls(first, first.new_zeros(groups, columns, columns), 0)

    def add(self, rows: Tensor) -> None:
        self.first += rows.sum(dim=1, dtype=torch.float64)
        for total, part in zip(self.second, rows, strict=True):
            total += part.T @ part
        self.rows += rows.shape[1]

    def moments(self, per_channel: bool) -> SiteMoments:
        mean = self.first / self.rows
        self.second /= self.rows
        self.second -= mean[:, :, None] * mean[:, None, :]
        return SiteMoments(mean, self.second.float(), self.rows, per_channel)
