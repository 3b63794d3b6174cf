"""Second moments of what every pruned layer reads, from one pass of the dense network.

For the rows x of a layer's (im2col) input, sampled at a few random places of every image, the mean
and the covariance are kept. They answer, for *any* kept set of input channels, which weights
approximate the layer best, how large the error is, and what batch norm will see: no further
forward pass is needed.

Columns are ordered as in `randprune.recovery.patches`. A layer with more than `full_columns`
columns per group, or beyond the memory limit, falls back to moments between *channels*, averaged
over the input map; correlations between kernel positions are then neglected. A layer that is too
wide even for that (the first linear layer of an ImageNet VGG reads 25,088 columns) has none, and
is not repaired.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.fx import Node

from randprune.atomic import write_file
from randprune.errors import ArtifactError, DataError
from randprune.graph.call import network_inputs
from randprune.graph.emit import emit
from randprune.graph.execute import Execution
from randprune.graph.layers import Geometry, Norm
from randprune.graph.program import Inputs
from randprune.graph.trees import count_of, map_tensors
from randprune.recovery.patches import channel_rows, input_rows, sample_positions
from randprune.recovery.replay import Layer, Replay, detached_tensors, replay_for
from randprune.space import IntArray, Space

Mode = Literal["full", "channels", "none"]

POSITIONS = 64
FULL_COLUMNS = 2304
LIMIT_MIB = 2048


@dataclass(frozen=True, slots=True, eq=False)
class SiteMoments:
    """Mean and covariance of the rows read at one place of the network.

    Attributes:
        mean: (groups, columns) float64.
        covariance: (groups, columns, columns) float32, centred.
        rows: how many rows were averaged.
        per_channel: one column per input channel instead of `taps` columns.
    """

    mean: Tensor
    covariance: Tensor
    rows: int
    per_channel: bool

    @property
    def columns(self) -> int:
        """Columns per group."""
        return int(self.mean.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Moments of all layers of a network that read prunable channels.

    Attributes:
        layers: by weight name, in the order of execution.
        sites: by site name (`Layer.site`).
        shapes: of the dense weights of these layers.
        images: how many images were seen.
        fingerprint: of the space.
    """

    layers: Mapping[str, Layer]
    sites: Mapping[str, SiteMoments]
    shapes: Mapping[str, tuple[int, ...]]
    images: int
    fingerprint: str

    def site(self, layer: Layer) -> SiteMoments:
        """The moments of what a layer reads."""
        return self.sites[layer.site]

    def columns(self, layer: Layer, inputs: IntArray) -> Tensor:
        """Columns, int64, that belong to the given input positions of the layer's weight."""
        index = torch.from_numpy(np.asarray(inputs, dtype=np.int64))
        if self.site(layer).per_channel or layer.taps == 1:
            return index
        return (index[:, None] * layer.taps + torch.arange(layer.taps)).reshape(-1)

    def matrix(self, layer: Layer, weight: Tensor) -> Tensor:
        """The weight as (groups, rows, columns), to be multiplied with the columns."""
        out = weight.detach().reshape(layer.groups, -1, weight.shape[1], layer.taps)
        if self.site(layer).per_channel:
            # One row per output and kernel position: positions are treated alike and apart.
            return out.transpose(2, 3).reshape(layer.groups, -1, weight.shape[1])
        return out.reshape(layer.groups, out.shape[1], -1)

    def weight(self, layer: Layer, matrix: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of `matrix`."""
        if self.site(layer).per_channel:
            parts = matrix.reshape(layer.groups, -1, layer.taps, shape[1]).transpose(2, 3)
            return parts.reshape(shape)
        return matrix.reshape(shape)

    def save(self, path: str | Path) -> Path:
        """Write everything to one .safetensors file.

        Raises:
            StorageError: the file cannot be written.
        """
        head = {
            "format": 1,
            "images": self.images,
            "fingerprint": self.fingerprint,
            "layers": [asdict(layer) for layer in self.layers.values()],
            "shapes": dict(self.shapes),
            "sites": {name: [s.rows, s.per_channel] for name, s in self.sites.items()},
        }
        tensors = {f"mean/{name}": s.mean for name, s in self.sites.items()}
        tensors |= {f"covariance/{name}": s.covariance for name, s in self.sites.items()}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        return write_file(
            Path(path), safetensors.torch.save(tensors, {"moments": json.dumps(head)})
        )

    @classmethod
    def load(cls, path: str | Path) -> Moments:
        """The moments that `save` wrote.

        Raises:
            ArtifactError: the file is no such file, or damaged.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                head = json.loads((file.metadata() or {})["moments"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            layers = [_layer_from(document) for document in head["layers"]]
            sites = {
                name: SiteMoments(tensors[f"mean/{name}"], tensors[f"covariance/{name}"], *rest)
                for name, rest in head["sites"].items()
            }
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{path} holds no second moments that can be read: {error}. Collect them again."
            ) from error
        return cls(
            {layer.weight: layer for layer in layers},
            sites,
            {name: tuple(shape) for name, shape in head["shapes"].items()},
            head["images"],
            head["fingerprint"],
        )


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
) -> Moments:
    """Moments of what the pruned layers of the dense network read, from one pass over the data.

    Args:
        model: the dense network that was traced; left untouched.
        space: its channel groups.
        batches: what `randprune.graph.call` finds the network's inputs in, such as (images,
            labels) pairs or images alone, float32, normalised.
        positions: places per image and layer at which windows are sampled.
        seed: of the places.
        full_columns: most columns (input channels per group times kernel positions) for which
            the full covariance is kept; wider layers get moments between channels.
        limit_mib: MiB that all accumulators may take together; the widest layers fall back to
            moments between channels until they fit.
        replay: the network's replay where there is one already (`reference_replay`).

    Raises:
        DataError: no images, or values that are not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, _Sums] = {}
    images = 0
    consumers = consumer_weights(space)
    tensors: Mapping[str, Tensor] = {}
    plan: Mapping[str, Mode] = {}
    seen: set[str] = set()

    def before(node: Node, run: Execution) -> None:
        assert replay is not None
        layer = replay.layers[node]
        mode = plan.get(layer.site, "none")
        if mode == "none" or layer.site in seen:
            return
        seen.add(layer.site)
        source = run.value(replay.source(node))
        if mode == "channels":
            rows = channel_rows(layer, source, positions, generator)
        else:
            places = sample_positions(layer, source, positions, generator)
            rows = input_rows(layer, source, places)
        sums.setdefault(layer.site, _Sums.like(rows)).add(rows)

    for batch in batches:
        inputs = network_inputs(model, batch)
        if replay is None:
            replay = reference_replay(model, space, inputs)
        if not tensors:
            tensors = reference_tensors(model, space)
            plan = _plan(replay, consumers, tensors, full_columns, limit_mib)
        seen.clear()
        with torch.no_grad():
            run = replay.run(tensors, map_tensors(channels_last, inputs), before)
            run.finish()
        images += count_of(inputs)
    if replay is None:
        raise DataError("No calibration images: the data is empty. Give at least a few hundred.")
    sites = {name: total.moments(plan[name] == "channels") for name, total in sums.items()}
    for name, site in sites.items():
        if not bool(torch.isfinite(site.covariance).all()):
            raise DataError(
                f"The inputs of layer {name!r} are not finite on the calibration images: check "
                "the normalisation of the images and the weights."
            )
    known = (layer for layer in replay.layers.values() if layer.weight in consumers)
    layers = {layer.weight: layer for layer in known if layer.site in sites}
    shapes = {name: tuple(tensors[name].shape) for name in layers}
    return Moments(layers, sites, shapes, images, space.fingerprint)


def consumer_weights(space: Space) -> frozenset[str]:
    """Names of the weights whose input channels (dim 1) can be cut."""
    return frozenset(
        slot.tensor for group in space.groups for slot in group.with_role("in") if slot.dim == 1
    )


def reference_replay(model: nn.Module, space: Space, inputs: Inputs) -> Replay:
    """The replay of the dense network in the form in which it is cut."""
    return replay_for(_reference(model, space), inputs)


def reference_tensors(model: nn.Module, space: Space) -> dict[str, Tensor]:
    """The dense network's tensors in the form in which it is cut."""
    return detached_tensors(_reference(model, space))


def _reference(model: nn.Module, space: Space) -> nn.Module:
    # An emitted network has tensors of its own (folded kernels), which the space's slots name.
    return emit(model, space, space.dense) if space.as_graph else model


def channels_last(value: Tensor) -> Tensor:
    """Images in the memory order that walks over graphs take; other values as they are."""
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def _plan(
    replay: Replay,
    consumers: frozenset[str],
    tensors: Mapping[str, Tensor],
    full_columns: int,
    limit_mib: int,
) -> dict[str, Mode]:
    """What is kept at each site; the widest sites step down first."""
    channels: dict[str, int] = {}
    sites: dict[str, Layer] = {}
    for layer in replay.layers.values():
        if layer.weight in consumers:
            channels[layer.site] = int(tensors[layer.weight].shape[1])
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


def _layer_from(document: dict[str, Any]) -> Layer:
    norm = document.pop("norm")
    windows: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in document.pop("geometry").items()
    }
    found = None if norm is None else Norm(**norm)
    return Layer(norm=found, geometry=Geometry(**windows), **document)
