"""The network whose weights all configurations share.

Method. Configuration w uses the first w[g] channels of every group g (slimmable networks: Yu et
al., ICLR 2019), that is a slice of every shared tensor. A second module, the view, has the same
layers without tensors of its own: before a forward pass its parameters are set to slices of the
shared ones and its layers' attributes to the small widths, so that the pass costs what a network of
that size costs. Slices are views where the channels lie one after the other, else gathered copies;
gradients flow back to the shared tensors, and are zero outside the slices.

Batch-norm statistics are not trained: passes in training mode use those of their batch and keep
none, since a mixture over configurations would fit none of them. Measure them (`recalibrate`)
before a sub-network is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from randprune.graph.numbers import change_numbers
from randprune.graph.program import private_copy
from randprune.graph.slicing import (
    parametrized_owner,
    refresh_attributes,
    removed_places,
    shrink_bare_norm,
    tensor_holders,
)
from randprune.space import IntArray, Selection, Space
from randprune.surgery import cut

# Numbers that layers keep about themselves; `refresh_attributes` starts from the full ones.
_NUMBERS = (
    "num_features", "in_channels", "out_channels", "groups", "in_features", "out_features",
    "num_groups", "num_channels", "normalized_shape", "num_parameters", "num_embeddings",
    "embedding_dim",
)  # fmt: skip

Kept = tuple[int, int] | Tensor | None
"""What stays of an axis: (start, length), positions, or None for all."""


def first_channels(space: Space, widths: npt.ArrayLike) -> Selection:
    """The selection that keeps the first `widths[g]` channels of every group."""
    checked = space.check_widths(widths).tolist()
    return Selection(tuple(np.arange(w, dtype=np.int64) for w in checked), space.fingerprint)


class Supernet(nn.Module):
    """A network that runs at any configuration of its space, with shared weights.

    Attributes:
        shared: holds all weights; a copy of the network given.
        space: its channel groups.
        widths: the configuration that `forward` runs, int64 (G,); see `configure`.
    """

    def __init__(self, network: nn.Module, space: Space) -> None:
        super().__init__()
        self.shared = private_copy(network)
        self.space = space
        self.widths: IntArray = space.widths
        self._view: _View | None = None

    def configure(self, widths: npt.ArrayLike) -> None:
        """Run at these widths from now on.

        Raises:
            InvalidInputError: widths that the space does not have.
        """
        self.widths = self.space.check_widths(widths)

    def forward(self, *inputs: Any) -> Any:
        """The outputs of the configured sub-network, at that sub-network's cost."""
        return self._ready().at(self.widths)(*inputs)

    def _ready(self) -> _View:
        if self._view is None:
            self._view = _View(self.shared, self.space)
        return self._view

    def subnetwork(self, widths: npt.ArrayLike) -> nn.Module:
        """A configuration as a network of its own, with copies of the shared weights."""
        return cut(self.shared, self.space, first_channels(self.space, widths))

    def used(self, rows: IntArray) -> dict[str, Tensor]:
        """Which entries of the shared parameters configurations (N, G) use.

        Returns:
            By name within `shared`: bool, broadcastable to the parameter; parameters that are used
            completely are left out.
        """
        view = self._ready()
        masks: dict[str, Tensor] = {}
        for row in rows:
            view.narrow(self.space.check_widths(row))
            for name, mask in view.used():
                masks[name] = masks[name] | mask if name in masks else mask
        names = dict(self.shared.named_parameters())
        return {
            name: mask for name, mask in masks.items() if name in names and not bool(mask.all())
        }

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the view, which a copy makes for itself."""
        return {**self.__dict__, "_view": None}


class _View:
    """A module whose tensors are slices of another one's."""

    def __init__(self, shared: nn.Module, space: Space) -> None:
        self.shared = shared
        self.space = space
        self.network = private_copy(shared)
        targets = tensor_holders(self.network)
        self.tensors = [
            _Tensor(name, source[0], targets[name], [])
            for name, source in tensor_holders(shared).items()
        ]
        by_name = {tensor.name: tensor for tensor in self.tensors}
        axes: dict[tuple[Any, ...], _Axis] = {}
        places: dict[tuple[str, int], list[tuple[int, IntArray]]] = {}
        for g, group in enumerate(space.groups):
            for slot in group.slots:
                places.setdefault((slot.tensor, slot.dim), []).append((g, slot.index))
        for (name, dim), parts in places.items():
            size = by_name[name].size(dim)
            key = (size, *((g, index.tobytes()) for g, index in parts))
            axis = axes.setdefault(key, _Axis(size, parts))  # tensors of a layer share their axes
            by_name[name].axes.append((dim, axis))
        self.axes = list(axes.values())
        layers: dict[int, nn.Module] = {}
        self.first_axis: dict[int, _Axis | None] = {}
        for tensor in self.tensors:
            if not tensor.axes:
                continue
            for module, _ in tensor.targets:
                layer = parametrized_owner(self.network, tensor.name) or module
                layers[id(layer)] = layer
                self.first_axis[id(layer)] = dict(tensor.axes).get(0)
        self.bare = {
            place.tensor: self.network.get_submodule(place.tensor)
            for group in space.groups
            for place in group.sizes
        }
        numbered = [*layers.values(), *self.bare.values()]
        self.layers = list(layers.values())
        self.numbers = [
            (layer, {name: vars(layer)[name] for name in _NUMBERS if name in vars(layer)})
            for layer in numbered
        ]
        for place in (place for group in space.groups for place in group.numbers):
            path, _, attribute = place.tensor.rpartition(".")
            reader = self.network.get_submodule(path)
            self.numbers.append((reader, {attribute: vars(reader)[attribute]}))
        self.pairs = list(zip(shared.modules(), self.network.modules(), strict=True))

    def narrow(self, widths: IntArray) -> None:
        """Find out what the configuration keeps of every axis."""
        for axis in self.axes:
            axis.narrow(widths)

    def used(self) -> Iterator[tuple[str, Tensor]]:
        """Tensors that groups run through, and what is kept of them: bool, broadcastable."""
        for tensor in self.tensors:
            if tensor.axes:
                yield tensor.name, tensor.used()

    def at(self, widths: IntArray) -> nn.Module:
        """The view at these widths."""
        for theirs, ours in self.pairs:
            ours.training = theirs.training
        self.narrow(widths)
        for tensor in self.tensors:
            tensor.assign(self.shared.training)
        for layer, numbers in self.numbers:
            layer.__dict__.update(numbers)
        for layer in self.layers:
            first = self.first_axis[id(layer)]
            refresh_attributes(layer, None if first is None else first.gone)
        if self.bare:
            selection = first_channels(self.space, widths)
            for name, lost in removed_places(self.space, selection, "sizes").items():
                shrink_bare_norm(self.bare[name], lost[0])
        change_numbers(self.network, self.space, widths)
        return self.network


class _Axis:
    """An axis on which channels of one or more groups lie, and what a configuration keeps of it."""

    def __init__(self, size: int, parts: list[tuple[int, IntArray]]) -> None:
        self.size = size
        self.parts = parts
        self.gone: IntArray | None = None
        self.kept: Kept = None
        self.stays = torch.ones(size, dtype=torch.bool)
        self._key: tuple[int, ...] = ()

    def narrow(self, widths: IntArray) -> None:
        """Set `kept` and `gone` to those of the configuration."""
        key = tuple(int(widths[g]) for g, _ in self.parts)
        if key == self._key:
            return
        self._key = key
        stays = np.ones(self.size, dtype=bool)
        for width, (_, index) in zip(key, self.parts, strict=True):
            stays[index[width:].reshape(-1)] = False
        self.stays = torch.from_numpy(stays)
        positions = np.flatnonzero(stays)
        if len(positions) == self.size:
            self.gone, self.kept = None, None
            return
        self.gone = np.flatnonzero(~stays)
        start, length = int(positions[0]) if len(positions) else 0, len(positions)
        together = not length or positions[-1] - start + 1 == length
        self.kept = (start, length) if together else torch.from_numpy(positions)


class _Tensor:
    """One shared tensor, where it is held, and where its slice goes."""

    def __init__(
        self,
        name: str,
        source: tuple[nn.Module, str],
        targets: list[tuple[nn.Module, str]],
        axes: list[tuple[int, _Axis]],
    ) -> None:
        self.name = name
        self.source = source
        self.targets = targets
        self.axes = axes

    def _shared(self) -> Tensor:
        module, attribute = self.source
        tensor = module._parameters.get(attribute)
        if tensor is None:
            tensor = module._buffers[attribute]  # type: ignore[assignment]
        assert tensor is not None
        return tensor

    def size(self, dim: int) -> int:
        """Length of an axis of the shared tensor."""
        return self._shared().shape[dim]

    def used(self) -> Tensor:
        """Which entries the slice holds, bool, broadcastable to the tensor, on its device."""
        tensor = self._shared()
        used = torch.ones((1,) * tensor.ndim, dtype=torch.bool)
        for dim, axis in self.axes:
            used = used & axis.stays.view([-1 if d == dim else 1 for d in range(tensor.ndim)])
        return used.to(tensor.device)

    def assign(self, training: bool) -> None:
        """Put the slice in the view's place for it, past the check that it is a Parameter.

        In training, buffers are copies: what a pass writes to them goes nowhere, and cannot come
        between another pass and its gradient.
        """
        tensor = self._shared()
        for dim, axis in self.axes:
            if isinstance(axis.kept, tuple):
                tensor = tensor.narrow(dim, *axis.kept)
            elif axis.kept is not None:
                tensor = tensor.index_select(dim, axis.kept.to(tensor.device))
        if training and not isinstance(self._shared(), nn.Parameter):
            tensor = tensor.clone()
        for module, attribute in self.targets:
            held: Any = module._parameters if attribute in module._parameters else module._buffers
            held[attribute] = tensor
