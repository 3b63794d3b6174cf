"""Filter norms (Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017).

Score of channel j: the L1 or L2 norm of its filter, flattened. Coupled groups add up the norms of
all their filters.

Known shortcomings: blind to the data and to a following batch norm's scale.
Differs from the paper: the paper ranks within one layer; here also across coupled layers, by sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from randprune.criteria.base import Need, ScoringContext, criteria, per_group
from randprune.space import ChannelGroup


@dataclass(frozen=True)
class _FilterNorm:
    order: ClassVar[int]
    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset({"weights"})

    def scores(self, context: ScoringContext) -> list[torch.Tensor]:
        """Sum over the group's filters of the norm of each channel's weights."""

        def score(group: ChannelGroup) -> torch.Tensor:
            total = torch.zeros(group.width)
            for slot in group.with_role("out"):
                filters = context.filters(slot).flatten(1)
                total += torch.linalg.vector_norm(filters, ord=self.order, dim=1).cpu()
            return total

        return per_group(context, score)


@criteria.register("l1")
@dataclass(frozen=True)
class L1(_FilterNorm):
    """L1 norm of each channel's filters."""

    order: ClassVar[int] = 1
    name: ClassVar[str] = "l1"


@criteria.register("l2")
@dataclass(frozen=True)
class L2(_FilterNorm):
    """L2 norm of each channel's filters."""

    order: ClassVar[int] = 2
    name: ClassVar[str] = "l2"
