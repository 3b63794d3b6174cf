"""Weights of cut layers that approximate the dense ones best, by least squares, without data.

For a layer y = W x + b whose inputs x are cut to K, the weights that minimise the mean squared
error over the calibration rows are, with the covariance S of x,

    W' = W_K + W_R S_RK (S_KK + r t I)^-1,     b' = b + W mean - W' mean_K,

where R is what was cut, t the mean of the diagonal of S and r the ridge: it pulls towards the
weights that were there before (`randprune.recovery.inverses` says how this is computed). The change
of bias goes into the layer's bias, or the running mean of a batch norm that reads the layer alone,
or becomes a new bias of the layer.

This is the weight update of Optimal Brain Surgeon (Hassibi & Stork, NIPS 1993) for whole columns,
as used for channels by He et al. (ICCV 2017); all candidates share one pass of the dense network.

Known shortcomings: each layer is repaired as if its inputs were the dense network's, so errors add
up in depth; see `randprune.recovery.sequential`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from randprune.errors import InvalidInputError
from randprune.graph.slicing import kept_positions
from randprune.lineage import named_tensors
from randprune.recovery.inverses import Inverses
from randprune.recovery.replay import Layer
from randprune.recovery.statistics import Moments, reference_tensors
from randprune.space import IntArray, Selection, Space


def repair(
    small: nn.Module,
    model: nn.Module,
    space: Space,
    selection: Selection,
    inverses: Inverses,
    *,
    tensors: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """`small` itself, its layers refitted to the dense network's by least squares.

    Args:
        small: the cut network; edited in place.
        model: the dense network; left untouched.
        space: its channel groups.
        selection: what `small` keeps.
        inverses: of the dense network's moments, with the ridge.
        tensors: the dense tensors where they are at hand (`reference_tensors`).

    Raises:
        InvalidInputError: the moments belong to another network.
    """
    moments = inverses.moments
    check_moments(moments, space)
    dense = tensors if tensors is not None else reference_tensors(model, space)
    with torch.no_grad():
        kept = kept_of(space, selection, moments.layers.values(), moments.shapes)
        own = named_tensors(small)
        for name, layer in moments.layers.items():
            inputs = kept[name].inputs if name in kept else None
            if inputs is None:
                continue
            weight = layer.upright(dense[name])
            rows = kept[name].rows(layer, weight)
            if rows is None:
                continue
            old = weight.index_select(0, rows)
            centred = takes_bias(small, layer)
            new, shift = refit(inverses, layer, old, inputs, centred=centred)
            layer.upright(own[name].detach()).copy_(new)
            if centred:
                add_to_bias(small, own, layer, shift)
    return small


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Positions of a weight's inputs and outputs that stay; None where all do."""

    inputs: IntArray | None
    outputs: IntArray | None

    def rows(self, layer: Layer, weight: Tensor) -> Tensor | None:
        """Kept outputs of an upright weight; None where groups of a layer keep unequal shares."""
        rows = np.arange(weight.shape[0]) if self.outputs is None else self.outputs
        if layer.groups > 1:
            share = weight.shape[0] // layer.groups
            counts = np.bincount(rows // share, minlength=layer.groups)
            if counts.min() != counts.max():
                return None
        return torch.from_numpy(rows).to(weight.device)


def kept_of(
    space: Space,
    selection: Selection,
    layers: Iterable[Layer],
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, Kept]:
    """What the selection keeps of every layer's weight that it touches; `shapes` are dense."""
    positions = kept_positions(space, selection)
    found = {}
    for layer in layers:
        removed, shape = positions.get(layer.weight), shapes[layer.weight]
        if removed is not None:
            axes = layer.input_dim, 1 - layer.input_dim
            found[layer.weight] = Kept(*(_others(shape[dim], removed.get(dim)) for dim in axes))
    return found


def _others(count: int, gone: IntArray | None) -> IntArray | None:
    """Of 0 to count - 1 those that are not gone; None where none is."""
    if gone is None:
        return None
    stay = np.ones(count, dtype=bool)
    stay[gone] = False
    return np.flatnonzero(stay)


def refit(
    inverses: Inverses,
    layer: Layer,
    weight: Tensor,
    inputs: IntArray,
    *,
    centred: bool = True,
) -> tuple[Tensor, Tensor]:
    """Least-squares weights on the kept inputs, upright, and the change of bias (rows,), float64.

    Args:
        inverses: of the dense network's moments.
        layer: a layer that they know.
        weight: the dense weight of the wanted outputs, with all inputs, upright.
        inputs: positions of the inputs that stay.
        centred: fit with a free bias. Otherwise the change of bias is 0.
    """
    moments = inverses.moments
    site = moments.site(layer)
    dense = moments.matrix(layer, weight)
    keep = moments.columns(layer, inputs)
    mask = torch.ones(site.columns, dtype=torch.bool)
    mask[keep] = False
    lost = torch.nonzero(mask)[:, 0]
    new = torch.empty(*dense.shape[:2], len(keep))
    change = torch.zeros(dense.shape[:2], dtype=torch.float64)
    for group, (matrix, inverse) in enumerate(
        zip(dense, inverses.of(layer, centred=centred), strict=True)
    ):
        rows, cut = inverse.index_select(0, lost), matrix.index_select(1, lost)
        factor = torch.linalg.cholesky(rows.index_select(1, lost))
        share = torch.cholesky_solve(cut.double().T, factor).T
        # What the kept columns take over; a sum of like terms, which float32 is enough for.
        moved = share.float() @ rows.index_select(1, keep).float()
        torch.sub(matrix.index_select(1, keep), moved, out=new[group])
        if centred:
            mean = site.mean[group]
            change[group] = cut.double() @ mean[lost] + moved.double() @ mean[keep]
    # Between channels, each kernel position is a row of its own: an output sums over them.
    shift = change.reshape(weight.shape[0], -1).sum(dim=1)
    shape = torch.Size((weight.shape[0], len(inputs), *weight.shape[2:]))
    return moments.weight(layer, new, shape), shift


def takes_bias(small: nn.Module, layer: Layer) -> bool:
    """Whether there is a place for a change of the layer's bias."""
    if layer.bias or layer.norm is not None:
        return True
    owner = small.get_submodule(layer.weight.rpartition(".")[0])
    return isinstance(owner, _ConvNd | nn.Linear)


def add_to_bias(
    small: nn.Module, tensors: Mapping[str, Tensor], layer: Layer, shift: Tensor
) -> None:
    """Add `shift` (rows,) to a layer's output, in place, where `takes_bias`."""
    if layer.bias:
        tensors[layer.bias].detach().add_(shift.to(tensors[layer.bias]))
    elif layer.norm is not None:
        mean = tensors[layer.norm.mean].detach()
        mean -= shift.to(mean)
    else:
        owner = small.get_submodule(layer.weight.rpartition(".")[0])
        weight = tensors[layer.weight]
        old = getattr(owner, "bias", None)
        if isinstance(old, Tensor):  # an earlier recovery added it
            old.detach().add_(shift.to(old))
        else:
            bias = nn.Parameter(shift.to(weight), requires_grad=weight.requires_grad)
            owner.register_parameter("bias", bias)


def check_moments(moments: Moments, space: Space) -> None:
    """Raise unless the moments belong to the space."""
    if moments.fingerprint != space.fingerprint:
        raise InvalidInputError(
            f"The moments were collected for space {moments.fingerprint}, this one is "
            f"{space.fingerprint}. Collect them on the network that is cut."
        )
