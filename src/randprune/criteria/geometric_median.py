"""Distance from the geometric median (FPGM, He et al., "Filter Pruning via Geometric Median for
Deep Convolutional Neural Networks Acceleration", CVPR 2019, Eq. 4-6).

Score of channel j: the sum over all j' of the Euclidean distance between filters j and j',

    g(j) = sum_j' ||F_j - F_j'||.

The filter with the smallest sum is nearest to the geometric median of its layer (Eq. 6): the others
can stand in for it, and it is cut first. Coupled groups add up the sums of all layers that produce
their channels; within a layer, all places of a channel are one filter.

Known shortcomings: blind to the data and to a following batch norm; quadratic in the width (time
and memory of one (width, width) matrix); of two equal filters both are ranked as replaceable, and
both may go.
Differs from the paper: ranks across coupled layers, by sum; the paper mixes in a share of
norm-based pruning, which is left to the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from randprune.criteria.base import Need, ScoringContext, criteria, per_group
from randprune.space import ChannelGroup


@criteria.register("geometric_median")
@dataclass(frozen=True)
class GeometricMedian:
    """Sum of the distances from each channel's filters to all others of their layer."""

    name: ClassVar[str] = "geometric_median"
    needs: ClassVar[frozenset[Need]] = frozenset({"weights"})

    def scores(self, context: ScoringContext) -> list[torch.Tensor]:
        """Sums of distances, in units of the weights."""

        def score(group: ChannelGroup) -> torch.Tensor:
            total = torch.zeros(group.width, dtype=torch.float64)
            for slot in group.with_role("out"):
                total += _distances(context.filters(slot).flatten(1)).sum(dim=1).cpu()
            return total

        return per_group(context, score)


def _distances(filters: torch.Tensor) -> torch.Tensor:
    """Euclidean distances between all rows of (C, D), float64 (C, C)."""
    # By products instead of differences, which is a matrix product for the library. In float64
    # and with the mean taken away, equal filters still come out within 1e-7 of their norm.
    rows = filters.double()
    rows = rows - rows.mean(dim=0)
    squares = rows.square().sum(dim=1)
    gaps = squares[:, None] + squares[None, :] - 2.0 * (rows @ rows.T)
    gaps.fill_diagonal_(0.0)
    return gaps.clamp_min_(0.0).sqrt_()
