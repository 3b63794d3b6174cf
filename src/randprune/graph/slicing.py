"""Remove channels from a module's tensors, or add some, and bring layers' attributes in line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from randprune.errors import InvalidInputError
from randprune.graph.labels import IntArray
from randprune.graph.numbers import change_numbers
from randprune.space import Selection, Space


def kept_positions(space: Space, selection: Selection) -> dict[str, dict[int, IntArray]]:
    """For every tensor that shrinks: axis -> positions that go, sorted int64."""
    return removed_places(space, selection, "slots")


def removed_places(
    space: Space, selection: Selection, places: Literal["slots", "sizes"]
) -> dict[str, dict[int, IntArray]]:
    """Like `kept_positions`; of "sizes": for every layer that only keeps a number of channels."""
    removed: dict[str, dict[int, list[IntArray]]] = defaultdict(lambda: defaultdict(list))
    for group, kept in zip(space.groups, selection, strict=True):
        if len(kept) == group.width:
            continue
        gone = np.setdiff1d(np.arange(group.width), kept, assume_unique=True)
        for slot in getattr(group, places):
            removed[slot.tensor][slot.dim].append(slot.places(gone))
    return {
        tensor: {dim: np.sort(np.concatenate(parts)) for dim, parts in dims.items()}
        for tensor, dims in removed.items()
    }


def counting_layers(model: nn.Module) -> frozenset[str]:
    """Names of the layers that keep a number of channels but own no tensor: bare norms."""
    return frozenset(
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, (_NormBase, nn.GroupNorm)) and not _tensors(module)
    )


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    own = [*module._parameters.values(), *module._buffers.values()]
    return [tensor for tensor in own if tensor is not None]


def narrow_tensor(tensor: torch.Tensor, removed: dict[int, IntArray]) -> torch.Tensor:
    """The tensor without the removed positions, as new contiguous memory."""
    for dim, gone in sorted(removed.items()):
        mask = np.ones(tensor.shape[dim], dtype=bool)
        mask[gone] = False
        index = torch.from_numpy(np.flatnonzero(mask)).to(tensor.device)
        tensor = tensor.index_select(dim, index)
    return tensor.contiguous()


def remove_channels(model: nn.Module, space: Space, selection: Selection) -> nn.Module:
    """Cut the module in place (callers pass their own copy) and return it."""
    removed = kept_positions(space, selection)
    holders = tensor_holders(model)
    _check_names(space, removed, holders)
    touched: dict[int, tuple[nn.Module, IntArray | None]] = {}
    for name, dims in removed.items():
        old = _held(holders[name])
        _check_shape(name, old, dims)
        for module in _replace(model, name, holders[name], narrow_tensor(old.detach(), dims)):
            touched[id(module)] = (module, dims.get(0))
    for module, gone in touched.values():
        refresh_attributes(module, gone)
    for layer, lost in removed_places(space, selection, "sizes").items():
        shrink_bare_norm(model.get_submodule(layer), lost[0])
    change_numbers(model, space, selection.widths)
    return model


def grow_channels(model: nn.Module, space: Space, widths: IntArray) -> nn.Module:
    """Give every group `widths[g]` channels, in place (callers pass their own copy); returns it.

    Every axis grows by its slots' multiplicity for each new channel. The values of tensors that
    grow are lost: where the old channels lie in them is known only when the result is traced.
    """
    more: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    unit: dict[str, int] = {}
    for group, width in zip(space.groups, widths.tolist(), strict=True):
        for slot in group.slots:
            if width > group.width:
                more[slot.tensor][slot.dim] += (width - group.width) * slot.index.shape[1]
                unit[slot.tensor] = slot.index.shape[1]
    holders = tensor_holders(model)
    _check_names(space, more, holders)
    touched: dict[int, tuple[nn.Module, int]] = {}
    for name, dims in more.items():
        old = _held(holders[name])
        shape = [size + dims.get(dim, 0) for dim, size in enumerate(old.shape)]
        for module in _replace(model, name, holders[name], old.detach().new_zeros(shape)):
            touched[id(module)] = (module, unit[name])
    for module, multiplicity in touched.values():
        if isinstance(module, nn.GroupNorm) and module.weight is not None:
            size = module.num_channels // module.num_groups
            if multiplicity % size == 0:  # channels come in whole norm groups
                module.num_groups = module.weight.shape[0] // size
        refresh_attributes(module, None)
    for group, width in zip(space.groups, widths.tolist(), strict=True):
        for place in group.sizes:
            per_channel = place.index.shape[1]
            added = (width - group.width) * per_channel
            _grow_bare_norm(model.get_submodule(place.tensor), added, per_channel)
    change_numbers(model, space, widths)
    return model


def _grow_bare_norm(module: nn.Module, added: int, per_channel: int) -> None:
    """Add new channels to the numbers of a norm without tensors."""
    if isinstance(module, nn.GroupNorm):
        size = module.num_channels // module.num_groups
        module.num_channels += added
        if per_channel % size == 0:
            module.num_groups += added // size
    elif isinstance(module, _NormBase):
        module.num_features += added


def _held(places: list[tuple[nn.Module, str]]) -> torch.Tensor:
    module, attribute = places[0]
    tensor: torch.Tensor = getattr(module, attribute)
    return tensor


def _replace(
    model: nn.Module, name: str, places: list[tuple[nn.Module, str]], new: torch.Tensor
) -> list[nn.Module]:
    """Put a tensor of another shape into its places; the layers whose attributes depend on it."""
    old = _held(places)
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    for module, attribute in places:
        setattr(module, attribute, new)
    return [parametrized_owner(model, name) or module for module, _ in places]


def _check_names(space: Space, names: Iterable[str], holders: Mapping[str, object]) -> None:
    missing = [name for name in names if name not in holders]
    if missing:
        raise InvalidInputError(
            f"The network has no tensor called {missing[0]!r} ({len(missing)} missing): the space "
            f"was traced from another network ({space.model or 'unknown'}). Trace this one."
        )


def shrink_bare_norm(module: nn.Module, gone: IntArray) -> None:
    """Take the lost channels off the numbers of a norm without tensors."""
    if isinstance(module, nn.GroupNorm):
        _refresh_group_norm(module, gone)
        module.num_channels -= len(gone)
    elif isinstance(module, _NormBase):
        module.num_features -= len(gone)


def parametrized_owner(model: nn.Module, name: str) -> nn.Module | None:
    """The layer whose weight is computed from this tensor by a parametrization, if any."""
    layer, mark, _ = name.partition(".parametrizations.")
    return model.get_submodule(layer) if mark else None


def tensor_holders(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """Qualified tensor name -> every (module, attribute) that holds that very tensor."""
    by_id: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    names: list[tuple[str, int]] = []
    for prefix, module in model.named_modules(remove_duplicate=False):
        own: Iterable[tuple[str, torch.Tensor | None]] = [
            *module._parameters.items(),
            *module._buffers.items(),
        ]
        for attribute, tensor in own:
            if tensor is None:
                continue
            if (module, attribute) not in by_id[id(tensor)]:
                by_id[id(tensor)].append((module, attribute))
            names.append((f"{prefix}.{attribute}" if prefix else attribute, id(tensor)))
    return {name: by_id[key] for name, key in names}


def _check_shape(name: str, tensor: torch.Tensor, dims: dict[int, IntArray]) -> None:
    for dim, gone in dims.items():
        if dim >= tensor.ndim or int(gone[-1]) >= tensor.shape[dim]:
            raise InvalidInputError(
                f"Tensor {name!r} has shape {tuple(tensor.shape)}: the space was traced from a "
                "wider network. Cut the network that was traced."
            )


def refresh_attributes(module: nn.Module, gone: IntArray | None) -> None:
    """Bring the numbers that a layer keeps about itself in line with its weight."""
    weight = getattr(module, "weight", None)
    if isinstance(module, _NormBase):
        held = weight if weight is not None else module.running_mean
        module.num_features = module.num_features if held is None else held.shape[0]
    if not isinstance(weight, torch.Tensor):
        return
    if isinstance(module, _ConvNd):
        _refresh_convolution(module, weight)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.GroupNorm):
        _refresh_group_norm(module, gone)
        module.num_channels = weight.shape[0]
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.shape[0]
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape


def _refresh_group_norm(module: nn.GroupNorm, gone: IntArray | None) -> None:
    """Whole norm groups went (exact) or every group lost as many channels (opt-in, inexact)."""
    if gone is None:
        return
    size = module.num_channels // module.num_groups
    per_group = np.bincount(gone // size, minlength=module.num_groups)
    if set(per_group.tolist()) <= {0, size}:
        module.num_groups = int((per_group == 0).sum())


def _refresh_convolution(module: _ConvNd, weight: torch.Tensor) -> None:
    transposed = isinstance(module, _ConvTransposeNd)
    depthwise = module.groups > 1 and module.groups == module.in_channels
    first, second = weight.shape[:2]
    if depthwise:
        multiplier = module.out_channels // module.groups
        module.groups = first if transposed else first // multiplier
    if transposed:
        module.in_channels, module.out_channels = first, second * module.groups
    else:
        module.in_channels, module.out_channels = second * module.groups, first
