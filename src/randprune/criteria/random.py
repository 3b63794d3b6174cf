"""Random channels: the control that every criterion must beat.

Not to be confused with random *configurations*, where the criterion still ranks the channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from randprune.criteria.base import Need, ScoringContext, criteria, per_group


@criteria.register("random")
@dataclass(frozen=True)
class Random:
    """A uniform random number for every channel."""

    name: ClassVar[str] = "random"
    needs: ClassVar[frozenset[Need]] = frozenset()

    def scores(self, context: ScoringContext) -> list[torch.Tensor]:
        """Numbers in [0, 1) from the context's generator."""
        return per_group(
            context, lambda group: torch.rand(group.width, generator=context.generator)
        )
