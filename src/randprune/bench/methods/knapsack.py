"""Knapsack: the most importance that fits into the budget, a channel only with those before it.

Method. A group that keeps its k best channels is worth the sum of their scores. The widths with the
highest total within the budget are found by Lagrangian relaxation with the exact cost of the whole
network, and exchanges of two groups (`randprune.strategies.lagrangian`).

Shen et al., "HALP: Hardware-aware latency pruning", NeurIPS 2022, and Aflalo et al., "Knapsack
pruning with inner distillation", 2020: Taylor scores as values, and a channel only after better
ones of its layer. Differs from HALP: the cost is the benchmark's, of the whole network instead of a
sum over layers, so that no augmented knapsack is needed; no training between steps.

Known shortcomings. Scores of different groups are added up as they are: `norm` says what makes them
comparable. Values are those of single channels, which do not know of each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from randprune.bench.methods.base import Task, methods
from randprune.bench.methods.global_ranking import check_norm, descending
from randprune.space import Selection
from randprune.strategies import LagrangianSearch


@methods.register("knapsack")
@dataclass(frozen=True)
class Knapsack:
    """The highest sum of scores within the budget.

    Args:
        norm: what a group's scores are divided by, as in `GlobalRanking`.
    """

    norm: str = "none"
    uses_criterion: ClassVar[bool] = True
    needs_trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_norm("knapsack", self.norm)

    @property
    def words(self) -> str:
        """What it does."""
        how = "" if self.norm == "none" else f", divided by the {self.norm} of their layer"
        return f"The widths within the budget with the highest sum of the criterion's scores{how}."

    def propose(self, task: Task) -> Selection:
        """The optimum of the knapsack."""
        tables = []
        for scores in task.scores:
            values = descending(scores, self.norm)
            values = values - min(0.0, float(values.min()))  # a knapsack has no negative values
            lost = values.sum() - np.concatenate([[0.0], values.cumsum()])
            tables.append(np.maximum(lost, 0.0))
        limits = task.limits
        search = LagrangianSearch(tables, min_keep=limits.min_keep, round_to=limits.round_to)
        return task.select(search.ask(task.space, task.budget, 1, task.rng)[0])
