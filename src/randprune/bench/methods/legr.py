"""LeGR: a global ranking whose scales and shifts between layers are learnt by evolution.

Method. The global score of a channel is a * s + b, with s its own score and a, b of its group; the
lowest go until the budget is met. Pairs (a, b) are searched by regularised evolution: the best of
`tournament` random members of the population has a tenth of its groups mutated, the oldest member
dies. A pair is worth what its network is worth on the search images after the quick repair.

Chin et al., "Towards efficient model compression via learned global ranking", CVPR 2020. Differs
from the paper: the fitness is the quality after a repair without training, not the loss after 200
steps of training; s is the row's criterion (the paper's: squared l2 norms), divided by the
group's mean, so that all start alike.

Known shortcomings. Two numbers a group cannot say everything about widths; the ranks within a group
stay those of the criterion.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from randprune.bench.methods.base import Task, check_count, methods
from randprune.bench.methods.global_ranking import ranked_widths
from randprune.cost import FloatArray
from randprune.errors import InfeasibleBudgetError
from randprune.space import IntArray, Selection

_MUTATED = 0.1


@methods.register("legr")
@dataclass(frozen=True)
class LeGR:
    """A learned global ranking.

    Args:
        candidates: how many rankings are evaluated.
        population, tournament: of the evolution.
    """

    candidates: int = 100
    population: int = 32
    tournament: int = 8
    uses_criterion: ClassVar[bool] = True
    needs_trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("candidates", "population", "tournament"):
            check_count("legr", name, getattr(self, name))

    @property
    def words(self) -> str:
        """What it does."""
        return (
            "All channels in one ranking; the scale and the shift of each layer's scores are "
            f"learnt by an evolution of {self.candidates} rankings, each repaired and evaluated."
        )

    def propose(self, task: Task) -> Selection:
        """The best ranking's widths; of equally good ones the first."""
        groups, rng = len(task.space), task.rng
        scores = [_relative(values) for values in task.scores]
        alive: deque[tuple[float, FloatArray]] = deque()
        best: tuple[float, IntArray] | None = None
        for number in range(self.candidates):
            if number == 0:
                genes = np.stack([np.zeros(groups), np.zeros(groups)])
            elif number < self.population:
                genes = rng.normal(0.0, 1.0, (2, groups))
            else:
                count = min(self.tournament, len(alive))
                picked = rng.choice(len(alive), size=count, replace=False)
                parent = max((alive[i] for i in picked.tolist()), key=lambda one: one[0])[1]
                hit = rng.random(groups) < _MUTATED
                hit[rng.integers(groups)] = True
                genes = parent + hit * rng.normal(0.0, 0.5, (2, groups))
            try:
                widths = self._widths(task, scores, genes)
            except InfeasibleBudgetError:
                if number == self.candidates - 1 and best is None:
                    raise
                continue
            value = task.evaluate(widths)
            if best is None or value > best[0]:
                best = value, widths
            alive.append((value, genes))
            if len(alive) > self.population:
                alive.popleft()
        assert best is not None
        return task.select(best[1])

    def _widths(self, task: Task, scores: list[Tensor], genes: FloatArray) -> IntArray:
        """Of the ranking by exp(a) * s + b."""
        moved = [
            values * float(np.exp(a)) + float(b)
            for values, a, b in zip(scores, *genes, strict=True)
        ]
        return ranked_widths(task.space, task.budget, task.limits, moved, "none")


def _relative(values: Tensor) -> Tensor:
    """Scores over the mean of their magnitudes."""
    found = values.detach().double().cpu()
    mean = found.abs().mean()
    return found / mean if float(mean) > 0 else torch.zeros_like(found)
