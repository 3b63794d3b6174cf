"""Iterative pruning: several small steps, with repair and fresh scores between them.

Method. The budget is approached in `steps` equal factors. After each step the network is cut,
repaired without training, and scored again, so that later steps see what earlier ones left. Widths
of a step are uniform, or by a global ranking of the scores at hand.

The usual opponent of one-shot pruning since Molchanov et al., ICLR 2017. Differs from the paper:
no training between the steps, since the runner alone trains.

Known shortcomings. A channel that is cut early never comes back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from randprune.bench.methods.base import Task, check_count, methods
from randprune.bench.methods.global_ranking import ranked_widths
from randprune.errors import InvalidInputError, quoted
from randprune.space import IntArray, Selection


@methods.register("iterative")
@dataclass(frozen=True)
class Iterative:
    """Small steps towards the budget.

    Args:
        steps: how many cuts.
        widths: "uniform", or "global" for a global ranking in each step.
        norm: of the global ranking.
    """

    steps: int = 4
    widths: str = "uniform"
    norm: str = "mean"
    uses_criterion: ClassVar[bool] = True
    needs_trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("iterative", "steps", self.steps)
        if self.widths not in ("uniform", "global"):
            raise InvalidInputError(
                "The 'widths' parameter of iterative must be 'uniform' or 'global'. "
                f"Got {quoted(self.widths)} instead."
            )

    @property
    def words(self) -> str:
        """What it does."""
        how = "at uniform widths" if self.widths == "uniform" else "by global ranking"
        return f"{self.steps} small cuts {how}, with repair and fresh scores between them."

    def propose(self, task: Task) -> Selection:
        """Cut step by step; scores of channels already cut are below all others."""
        kept = list(task.scores)
        selection = task.space.dense
        for step in range(1, self.steps + 1):
            # Never wider than before: a channel that is gone does not come back.
            widths = np.minimum(self._widths(task, step, kept), selection.widths)
            selection = task.select(widths, _everywhere(task, selection, kept))
            if step < self.steps:
                kept = task.rescore(selection)
        return selection

    def _widths(self, task: Task, step: int, kept: list[Tensor]) -> IntArray:
        budget = task.budget
        if step < self.steps:
            budget = replace(budget, ratio=budget.ratio ** (step / self.steps))
        if self.widths == "global":
            return ranked_widths(task.space, budget, task.limits, kept, self.norm)
        return task.uniform_widths(budget)


def _everywhere(task: Task, selection: Selection, kept: list[Tensor]) -> list[Tensor]:
    """Ranks of the kept channels among all channels of the dense network; -1 for the others."""
    found = []
    for group, places, values in zip(task.space.groups, selection, kept, strict=True):
        ranks = torch.full((group.width,), -1.0)
        order = torch.argsort(values.cpu(), stable=True, descending=True)
        ranks[torch.from_numpy(places)[order]] = torch.arange(len(order), 0, -1).float()
        found.append(ranks)
    return found
