"""Channel independence (CHIP, Sui et al., "CHIP: CHannel Independence-based Pruning for Compact
Neural Networks", NeurIPS 2021, Eq. 3).

Score of channel j: how much the nuclear norm of a layer's feature maps drops without it,

    s(j) = mean over images of  ||A||_* - ||A without row j||_*,

A holding one flattened feature map of the layer per row. A map that others can replace adds little.
The maps are those that the next layer reads, i.e. after norm and activation function. Coupled
groups add up the scores of all values that are read (in a residual stage, the input of each block).

One eigendecomposition gives the drops of all channels. With M = A A', deleting row and column j
divides det(M + s^2) by the j-th diagonal entry of its inverse, and the sum of square roots of
eigenvalues is an integral over log-determinants, so that

    s(j) = -1/pi * integral over s in (0, inf) of log(s^2 [(M + s^2)^-1]_jj) ds,

by the trapezoidal rule in log s, which converges exponentially.

Known shortcomings: says nothing about what the next layer does with a map; a channel that is alone
in its direction but useless ranks high; cost grows with min(channels, pixels)^3 per image.
Differs from the paper: where a layer reads channels of several groups, rows are all channels that
it reads, unless flattening gives them different lengths (then those of the group alone).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from randprune.criteria.base import Need, ScoringContext, criteria
from randprune.criteria.passes import collected, request
from randprune.graph.observers import Observer
from randprune.graph.sites import Site
from randprune.space import IntArray, Space

# Step and half-width of the quadrature in log s: together an error below 1e-8 of the largest
# singular value.
_STEP = 0.5
_REACH = 20.0


@criteria.register("chip")
@dataclass(frozen=True)
class Chip:
    """Drop of the nuclear norm of a layer's feature maps without the channel's.

    Attributes:
        images: how many images of the data are looked at, taken evenly (the paper: 640).
    """

    images: int = 256
    name: ClassVar[str] = "chip"
    needs: ClassVar[frozenset[Need]] = frozenset({"activations"})

    def prepare(self, context: ScoringContext) -> None:
        """Request the feature maps."""
        request(context, self, lambda: _Independence(context.space, self.images))

    def scores(self, context: ScoringContext) -> list[Tensor]:
        """Mean drops of the nuclear norm, in units of the activations; float64."""
        found = collected(context, self, lambda: _Independence(context.space, self.images))
        return found.means()


class _Independence(Observer):
    """Sums over images of the drops, for each group at each value that is read."""

    reads_sites = True

    def __init__(self, space: Space, images: int) -> None:
        self.images = images
        self.space = space
        self._site_of: dict[tuple[str, int], str] = {}
        self._sums: dict[tuple[str, int], Tensor] = {}
        self._counts: dict[tuple[str, int], int] = {}

    def read(self, site: Site, values: Tensor, weight: Tensor) -> None:
        """Add the drops at one site; several layers that read the same value count once."""
        groups = [
            group
            for group in site.members
            if self._site_of.setdefault((site.source.name, group), site.name) == site.name
        ]
        if not groups:
            return
        maps = site.maps(values)
        together = None if site.rows is None else nuclear_drops(_matrices(maps, site.rows))
        for group in groups:
            places = site.members[group]
            if site.rows is None or together is None:
                drops = nuclear_drops(_matrices(maps, places))
            else:
                drops = together[:, np.searchsorted(site.rows[:, 0], places[:, 0])]
            key = (site.source.name, group)
            self._sums[key] = drops.sum(dim=0).cpu() + self._sums.get(key, 0.0)
            self._counts[key] = self._counts.get(key, 0) + len(drops)

    def means(self) -> list[Tensor]:
        """Per group the sum over values of the mean drop."""
        totals = [torch.zeros(group.width, dtype=torch.float64) for group in self.space.groups]
        for key, drops in self._sums.items():
            totals[key[1]] += drops / self._counts[key]
        return totals


def _matrices(maps: Tensor, places: IntArray) -> Tensor:
    """(B, positions, rest) to one row per channel, float64 (B, channels, multiplicity * rest)."""
    index = torch.from_numpy(places).to(maps.device)
    return maps[:, index].flatten(2).double()


def nuclear_drops(matrices: Tensor) -> Tensor:
    """||A||_* - ||A without row j||_* for every row of every A: (B, C, D) to (B, C), float64."""
    _, channels, pixels = matrices.shape
    wide = pixels >= channels
    gram = matrices @ matrices.mT if wide else matrices.mT @ matrices
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp_min(0.0)
    top = values[:, -1:].sqrt()
    top = torch.where(top > 0, top, torch.ones_like(top))
    nodes = int(_REACH / _STEP)
    points = _STEP * torch.arange(-nodes, nodes + 1, device=gram.device, dtype=gram.dtype)
    s = top * points.exp()
    damped = 1.0 / (values[:, :, None] + s.square()[:, None, :])
    # `ratios` is s^2 [(M + s^2)^-1]_jj. Of the two forms, the first loses no digits, the second
    # needs the eigenvectors of the smaller matrix only.
    if wide:
        ratios = vectors.square() @ (s.square()[:, None, :] * damped)
    else:
        ratios = 1.0 - (matrices @ vectors).square() @ damped
    logs = ratios.clamp(torch.finfo(gram.dtype).tiny, 1.0).log()
    drops: Tensor = (logs * s[:, None, :]).sum(dim=2) * (-_STEP / math.pi)
    return drops
