"""Empirical sensitivity (Liebenwein et al., "Provable Filter Pruning for Efficient Neural
Networks", ICLR 2020, Def. 1).

Scores the *input* channels of the layers behind a group. The share of input channel j in
pre-activation i of one image at one position, and its maximum over all of them, are

    s(j) = max over images, i, positions of  w_ij a_j / sum_k w_ik a_k,

w_ij a_j being a sum over kernel positions (and over all places of a channel after flattening).
Positive and negative weights and activations are treated apart: the four combinations of signs have
numerators and denominators of their own, so that shares lie in [0, 1], and the largest counts.
Coupled groups add up the scores of all layers that read them.

Known shortcomings: a maximum over finitely many images saturates: every channel that is the only
active one somewhere scores 1; the share in a pre-activation that does not matter counts in full;
dearer than a forward pass by about the number of outputs of the widest layer in memory traffic.
Differs from the paper: scores order channels; the paper samples them with probabilities
proportional to s(j) and bounds the error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from randprune.criteria.base import Need, ScoringContext, criteria
from randprune.criteria.passes import collected, request
from randprune.errors import UnsupportedModelError
from randprune.graph.layers import CONVOLUTIONS, geometry
from randprune.graph.observers import Observer
from randprune.graph.sites import Site
from randprune.space import Space

# Elements that are held at once: contributions (to stay in the cache), positions of them, columns.
_ELEMENTS = 1 << 18
_POSITIONS = 512
_COLUMNS = 1 << 24


@criteria.register("empirical_sensitivity")
@dataclass(frozen=True)
class EmpiricalSensitivity:
    """Largest share of a channel in any pre-activation of the layers that read it.

    Attributes:
        images: how many images of the data are looked at, taken evenly.
    """

    images: int = 128
    name: ClassVar[str] = "empirical_sensitivity"
    needs: ClassVar[frozenset[Need]] = frozenset({"weights", "activations"})

    def prepare(self, context: ScoringContext) -> None:
        """Request what the layers read."""
        request(context, self, lambda: _Largest(context.space, self.images))

    def scores(self, context: ScoringContext) -> list[Tensor]:
        """Shares in [0, 1], added over the layers that read a group."""
        found = collected(context, self, lambda: _Largest(context.space, self.images))
        return found.sums()


class _Largest(Observer):
    """The largest shares so far, for each group at each site."""

    reads_sites = True

    def __init__(self, space: Space, images: int) -> None:
        self.images = images
        self.space = space
        self._largest: dict[tuple[str, int], Tensor] = {}

    def read(self, site: Site, values: Tensor, weight: Tensor) -> None:
        """Raise the shares at one site by those of one batch."""
        found = largest_shares(site, values, weight)
        for group, shares in found.items():
            key = (site.name, group)
            held = self._largest.get(key)
            self._largest[key] = shares if held is None else torch.maximum(held, shares)

    def sums(self) -> list[Tensor]:
        """Per group the sum over the sites that read it."""
        totals = [torch.zeros(group.width) for group in self.space.groups]
        for (_, group), shares in self._largest.items():
            totals[group] += shares.cpu()
        return totals


def largest_shares(site: Site, values: Tensor, weight: Tensor) -> dict[int, Tensor]:
    """For each group read at a site, the largest share of each of its channels, float32 (width,).

    Raises:
        UnsupportedModelError: the layer is no convolution, linear layer or product with a matrix.
    """
    found = {
        group: torch.zeros(len(places), device=values.device)
        for group, places in site.members.items()
    }
    for columns, kernels in _columns(site, values.float(), weight.float()):
        for weights in _signs(kernels):
            for part in range(len(columns)):
                _raise(found, columns[part], weights[part], _inside(site, part, columns.shape[1]))
    return found


@dataclass(frozen=True, slots=True)
class _Inside:
    """Channels of one group among the inputs of one part: `rows` (K,) with inputs (K, M) each."""

    group: int
    rows: Tensor
    inputs: Tensor


def _inside(site: Site, part: int, inputs: int) -> list[_Inside]:
    """The channels of all groups that one part reads; parts take `inputs` positions each."""
    found = []
    for group, places in site.members.items():
        index = torch.from_numpy(places) - part * inputs
        here = (index >= 0) & (index < inputs)
        rows = here.any(dim=1)
        if bool(rows.any()):
            # Places of one channel that meet in one pre-activation are added up there.
            own = index[rows][here[rows]].reshape(int(rows.sum()), -1)
            found.append(_Inside(group, torch.nonzero(rows)[:, 0], own))
    return found


def _raise(
    found: dict[int, Tensor], columns: Tensor, kernels: Tensor, members: list[_Inside]
) -> None:
    """Raise the largest shares found so far by those in one part, in place.

    Args:
        columns: (inputs, taps, positions), what the layer reads; not negative.
        kernels: (inputs, taps, outputs), not negative.
    """
    inputs, _, positions = columns.shape
    everything, dense = columns.flatten(0, 1), kernels.flatten(0, 1).T
    own = [
        (m, kernels[m.inputs].flatten(1, 2).mT, columns[m.inputs].flatten(1, 2)) for m in members
    ]
    width = min(positions, _POSITIONS)
    height = max(1, _ELEMENTS // (inputs * width))
    for start in range(0, positions, width):
        some = slice(start, start + width)
        for first in range(0, len(dense), height):
            total = dense[first : first + height] @ everything[:, some]
            inverse = torch.where(total > 0, 1.0 / total, torch.zeros_like(total))
            for member, weights, read in own:
                shares = torch.bmm(weights[:, first : first + height], read[:, :, some])
                top = shares.mul_(inverse).flatten(1).amax(dim=1).clamp_max_(1.0)
                held = found[member.group]
                held[member.rows] = torch.maximum(held[member.rows], top)


def _signs(values: Tensor) -> list[Tensor]:
    """The positive and the negative part, both as positive numbers; a part of zeros is left out."""
    parts = (values.clamp_min(0.0), (-values).clamp_min(0.0))
    return [part for part in parts if bool(part.any())]


def _columns(site: Site, values: Tensor, weight: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The layer as products: columns (parts, inputs, taps, positions), one sign at a time, and
    kernels (parts, inputs, taps, outputs). Parts are the groups of a grouped convolution, which
    have pre-activations of their own."""
    lie = None if site.operator not in CONVOLUTIONS else geometry(site.step, weight.shape[2:])
    if lie is not None and len(lie.kernel) <= 2 and not lie.transposed:
        kernels = weight.reshape(lie.groups, -1, weight.shape[1], lie.taps).permute(0, 2, 3, 1)
        # A map with one axis gets a first axis of size one.
        first = (1,) * (2 - len(lie.kernel))
        if first:
            values = values[:, :, None]
        kernel, step, spread = (first + n for n in (lie.kernel, lie.stride, lie.dilation))
        groups, taps = lie.groups, lie.taps
        padded = F.pad(values, lie.padding)
        at_once = max(1, _COLUMNS // (taps * padded[0].numel()))
        for piece in torch.split(padded, at_once):
            for some in _signs(piece):
                rows = F.unfold(some, kernel, dilation=spread, stride=step)
                windows = torch.unflatten(rows, 1, (groups, -1, taps))
                yield windows.permute(1, 2, 3, 0, 4).flatten(3), kernels
        return
    matrix = weight.mT if site.operator == "linear" else weight
    if site.operator in ("linear", "matmul", "mm", "addmm") and site.axis == values.ndim - 1:
        for some in _signs(values.reshape(-1, values.shape[-1])):
            yield some.T[None, :, None, :], matrix[None, :, None, :]
        return
    raise UnsupportedModelError(
        f"empirical_sensitivity cannot look into {site.layer} ({site.operator}): it knows "
        "convolutions along one or two axes, linear layers and products with a matrix. Use "
        "another criterion, or freeze that layer."
    )
