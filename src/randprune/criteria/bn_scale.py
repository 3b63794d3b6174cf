"""Scale of batch norm (network slimming, Liu et al., "Learning Efficient Convolutional Networks
through Network Slimming", ICCV 2017, Sec. 3).

Score of channel j: |gamma_j| of the batch norm that scales it. Coupled groups add up the scales of
all batch norms over their channels (in a residual stage, those of all its blocks; in a dense block,
those of all layers that normalise the channel again).

A group without any batch norm falls back to the L2 norm of its filters: in a network without norms
this criterion is `l2`.

Known shortcomings: gamma says how much a channel varies before the next layer, not what that layer
makes of it, and its size depends on the weights behind; scores of groups with and without batch
norm have different units, so that they should not be ranked together.
Differs from the paper: it trains with an L1 penalty on all gammas first and then cuts by one global
threshold; here gamma is taken as it is, and only the ranking within a group is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from randprune.criteria.base import Need, ScoringContext, criteria, per_group
from randprune.space import ChannelGroup


@criteria.register("bn_scale")
@dataclass(frozen=True)
class BNScale:
    """Size of each channel's batch-norm scales; the L2 norm of its filters where it has none."""

    name: ClassVar[str] = "bn_scale"
    needs: ClassVar[frozenset[Need]] = frozenset({"weights"})

    def scores(self, context: ScoringContext) -> list[torch.Tensor]:
        """Sums of |gamma|."""
        scales = {
            f"{name}.weight"
            for name, module in context.model.named_modules()
            if isinstance(module, _BatchNorm)
        }

        def score(group: ChannelGroup) -> torch.Tensor:
            gammas = [s for s in group.with_role("pass") if s.tensor in scales]
            total = torch.zeros(group.width)
            for slot in gammas:
                total += context.filters(slot).abs().sum(dim=(1, 2)).cpu()
            if not gammas:
                for slot in group.with_role("out"):
                    filters = context.filters(slot).flatten(1)
                    total += torch.linalg.vector_norm(filters, dim=1).cpu()
            return total

        return per_group(context, score)
