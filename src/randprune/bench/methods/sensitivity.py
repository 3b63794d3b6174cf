"""One threshold of sensitivity: every group as narrow as the same loss of quality allows.

Method. Each group alone is cut to `levels` of its widths in the dense network, repaired and
evaluated on the search images; the loss against the dense network is made monotone. One threshold
is bisected: every group takes its smallest width whose loss is at most the threshold. Single groups
are then stepped onto the budget.

The search of NVIDIA's FastNAS (Model Optimizer). Differs from it: networks are repaired before they
are evaluated; the quality is what the benchmark ranks by.

Known shortcomings. Groups are taken as independent; levels times groups evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from randprune.bench.methods.base import Task, check_count, methods
from randprune.bench.methods.on_budget import on_budget
from randprune.cost import FloatArray
from randprune.space import Selection
from randprune.strategies.feasible import WidthGrid, require_reachable


@methods.register("sensitivity")
@dataclass(frozen=True)
class Sensitivity:
    """The same loss of quality for all groups.

    Args:
        levels: at how many widths, evenly spaced, a group is measured.
    """

    levels: int = 10
    uses_criterion: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("sensitivity", "levels", self.levels)

    @property
    def words(self) -> str:
        """What it does."""
        return (
            f"Each group alone at {self.levels} widths, repaired and evaluated; all take the "
            "narrowest width with the same loss."
        )

    def propose(self, task: Task) -> Selection:
        """The widths of the threshold that meets the budget."""
        space, budget, limits = task.space, task.budget, task.limits
        require_reachable(space, budget, limits.min_keep, limits.round_to)
        grid = WidthGrid.of(space, limits.min_keep, limits.round_to)
        dense = task.evaluate(space.widths)
        curves = [self._curve(task, grid, group, dense) for group in range(len(space))]
        cost = space.cost(budget.metric)
        thresholds = np.unique(np.concatenate([losses for _, losses in curves]))

        def widths_at(threshold: float) -> FloatArray:
            return np.array([float(w[losses <= threshold].min()) for w, losses in curves])

        # The cost falls as the threshold rises.
        low, high = 0, len(thresholds) - 1
        while low < high:
            middle = (low + high) // 2
            share = float(cost(widths_at(thresholds[middle]).astype(np.int64))) / cost.dense
            low, high = (middle + 1, high) if share > budget.ratio else (low, middle)
        wanted = widths_at(float(thresholds[low]))
        return task.select(on_budget(space, budget, limits, wanted, "sensitivity"))

    def _curve(
        self, task: Task, grid: WidthGrid, group: int, dense: float
    ) -> tuple[FloatArray, FloatArray]:
        """Widths from the dense one down, and the losses there, which never fall."""
        allowed = grid.levels(group)[::-1]
        places = np.linspace(0, len(allowed) - 1, min(self.levels, len(allowed) - 1) + 1)
        widths = allowed[np.unique(places.round().astype(np.int64))]
        losses = [0.0]
        for width in widths[1:]:
            row = task.space.widths.copy()
            row[group] = int(width)
            losses.append(dense - task.evaluate(row))
        found: FloatArray = np.maximum.accumulate(np.array(losses))
        return widths.astype(np.float64), found
