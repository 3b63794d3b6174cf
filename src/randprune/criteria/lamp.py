"""Layer-adaptive magnitude (LAMP, Lee et al., "Layer-adaptive Sparsity for the Magnitude-based
Pruning", ICLR 2021, Eq. 5), for channels.

Score of channel j, with m_j the squared norm of its filters:

    s(j) = m_j / sum of m_j' over all j' with m_j' >= m_j.

The share of what would be left if everything smaller were gone. Within a group the order is that of
`l2`; between groups scores are comparable: the best channel of every group scores 1, so that a
global ranking never empties a group. Coupled groups take m_j over all their filters.

Known shortcomings: blind to the data and to a following batch norm.
Differs from the paper: channels instead of single weights; channels of equal norm count in each
other's denominators, so that they score alike (the paper breaks ties by position).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from randprune.criteria.base import Need, ScoringContext, criteria, per_group
from randprune.space import ChannelGroup


@criteria.register("lamp")
@dataclass(frozen=True)
class Lamp:
    """Squared norm of each channel's filters relative to those that are at least as large."""

    name: ClassVar[str] = "lamp"
    needs: ClassVar[frozenset[Need]] = frozenset({"weights"})

    def scores(self, context: ScoringContext) -> list[torch.Tensor]:
        """Shares in [0, 1]; a channel whose filters are zero scores 0."""

        def score(group: ChannelGroup) -> torch.Tensor:
            squares = torch.zeros(group.width, dtype=torch.float64)
            for slot in group.with_role("out"):
                squares += context.filters(slot).flatten(1).double().square().sum(dim=1).cpu()
            return _shares(squares)

        return per_group(context, score)


def _shares(squares: torch.Tensor) -> torch.Tensor:
    ordered, order = squares.sort()
    # Entry k of `left`: the sum of all that are not smaller than the k-th smallest. Equal ones
    # share the sum of the first of them.
    left = ordered.flip(0).cumsum(0).flip(0)
    first = torch.searchsorted(ordered, ordered)
    shares = torch.empty_like(squares)
    shares[order] = ordered / left[first].clamp_min(torch.finfo(torch.float64).tiny)
    return shares
