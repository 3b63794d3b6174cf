"""Reconstruction: how badly the layers behind a group can be rebuilt without a channel.

Score of channel j: the error of the layers behind its group, refitted by least squares, at which
greedy elimination removes it (`randprune.recovery.elimination`, after Optimal Brain Surgeon,
Hassibi & Stork, NIPS 1993).

Known shortcomings: those of the elimination: greedy, groups independent of each other, norms of the
filters where no layer behind can be looked at.
Differs from the paper: it prunes single weights by a quadratic model of the loss; here channels go
as wholes, and the quadratic is the layer's own error, which is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from randprune.criteria.base import Need, ScoringContext, criteria
from randprune.recovery.inverses import RIDGE


@criteria.register("reconstruction")
@dataclass(frozen=True)
class Reconstruction:
    """The error of the layers behind at which greedy elimination removes the channel."""

    ridge: float = RIDGE
    name: ClassVar[str] = "reconstruction"
    needs: ClassVar[frozenset[Need]] = frozenset({"weights", "moments"})

    def scores(self, context: ScoringContext) -> list[Tensor]:
        """One (width,) float64 tensor a group, higher = keep; moments are shared."""
        if context.shared.moments is None:
            assert context.batches is not None
            context.shared.collect(context.batches())
        return [elimination.scores for elimination in context.shared.eliminations(self.ridge)]
