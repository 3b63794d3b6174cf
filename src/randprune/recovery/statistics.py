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

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from randprune.errors import ArtifactError
from randprune.graph.emit import emit
from randprune.graph.layers import Geometry, Norm
from randprune.graph.program import Inputs
from randprune.recovery.replay import Layer, Replay, detached_tensors, replay_for
from randprune.space import IntArray, Space
from randprune.tensor_file import read_with_head, write_tensors


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
        """The upright weight as (groups, rows, columns), to be multiplied with the columns."""
        out = weight.detach().reshape(layer.groups, -1, weight.shape[1], layer.taps)
        if self.site(layer).per_channel:
            # One row per output and kernel position: positions are treated alike and apart.
            return out.transpose(2, 3).reshape(layer.groups, -1, weight.shape[1])
        return out.reshape(layer.groups, out.shape[1], -1)

    def weight(self, layer: Layer, matrix: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of `matrix`: an upright weight of this shape."""
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
            "format": 2,
            "images": self.images,
            "fingerprint": self.fingerprint,
            "layers": [asdict(layer) for layer in self.layers.values()],
            "shapes": dict(self.shapes),
            "sites": {name: [s.rows, s.per_channel] for name, s in self.sites.items()},
        }
        tensors = {f"mean/{name}": s.mean for name, s in self.sites.items()}
        tensors |= {f"covariance/{name}": s.covariance for name, s in self.sites.items()}
        write_tensors(path, tensors, head)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Moments:
        """The moments that `save` wrote.

        Raises:
            ArtifactError: the file is no such file, or damaged.
        """
        try:
            head, tensors = read_with_head(path)
            layers = [_layer_from(document) for document in head["layers"]]
            sites = {
                name: SiteMoments(tensors[f"mean/{name}"], tensors[f"covariance/{name}"], *rest)
                for name, rest in head["sites"].items()
            }
            return cls(
                {layer.weight: layer for layer in layers},
                sites,
                {name: tuple(shape) for name, shape in head["shapes"].items()},
                head["images"],
                head["fingerprint"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"{path} holds no second moments that can be read: {error}. Collect them again."
            ) from error


def readers(replay: Replay, space: Space) -> list[Layer]:
    """The layers whose input channels can be cut, in order."""
    slots = {(slot.tensor, slot.dim) for group in space.groups for slot in group.with_role("in")}
    return [x for x in replay.layers.values() if (x.weight, x.input_dim) in slots]


def reference_replay(model: nn.Module, space: Space, inputs: Inputs) -> Replay:
    """The replay of the dense network in the form in which it is cut."""
    return replay_for(_reference(model, space), inputs)


def channels_last(value: Tensor) -> Tensor:
    """Images in the memory order that walks over graphs take; other values as they are."""
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def reference_tensors(model: nn.Module, space: Space) -> dict[str, Tensor]:
    """The dense network's tensors in the form in which it is cut."""
    return detached_tensors(_reference(model, space))


def _reference(model: nn.Module, space: Space) -> nn.Module:
    # An emitted network has tensors of its own (folded kernels), which the space's slots name.
    return emit(model, space, space.dense) if space.as_graph else model


def _layer_from(document: dict[str, Any]) -> Layer:
    norm = document.pop("norm")
    windows: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in document.pop("geometry").items()
    }
    found = None if norm is None else Norm(**norm)
    return Layer(norm=found, geometry=Geometry(**windows), **document)
