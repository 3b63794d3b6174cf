"""Greedy slimming: one step of one group at a time, where it costs least.

Method. From the dense network on, every group that may lose a step (a share of its dense width) is
tried alone; the one whose network is best on the search images after the quick repair loses it; and
so on until the budget is reached. Single groups are then stepped onto the budget.

Yu & Huang, "AutoSlim: Towards one-shot architecture search for channel numbers", 2019, and Yang et
al., "NetAdapt", ECCV 2018. Differs from AutoSlim: the weights are the trained network's, repaired,
instead of those of a slimmable network. Differs from NetAdapt: steps are shares of a group's width,
not of the budget, and no network is trained in between.

Known shortcomings. A step that is cheap in quality may save next to nothing; about as many
evaluations as groups times steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from randprune.bench.methods.base import Task, methods
from randprune.bench.methods.on_budget import on_budget
from randprune.errors import InvalidInputError, quoted
from randprune.space import IntArray, Selection
from randprune.strategies.feasible import WidthGrid, require_reachable


@methods.register("greedy")
@dataclass(frozen=True)
class Greedy:
    """Drop the step that is missed least, again and again.

    Args:
        step: the share of its dense width that a group loses at once.
    """

    step: float = 0.1
    uses_criterion: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 < self.step < 1.0:
            raise InvalidInputError(
                "The 'step' parameter of greedy must lie between 0 and 1. Got "
                f"{quoted(self.step)} instead."
            )

    @property
    def words(self) -> str:
        """What it does."""
        return (
            f"The group that is missed least loses {self.step:.0%} of its channels, on the search "
            "images after the quick repair, until the budget is met."
        )

    def propose(self, task: Task) -> Selection:
        """The widths where the budget is reached."""
        space, budget, limits = task.space, task.budget, task.limits
        require_reachable(space, budget, limits.min_keep, limits.round_to)
        grid = WidthGrid.of(space, limits.min_keep, limits.round_to)
        cost = space.cost(budget.metric)
        now = space.widths.copy()
        while float(cost(now)) > budget.ratio * cost.dense:
            tried = [self._without(now, group, grid) for group in range(len(space))]
            able = [row for row in tried if row is not None]
            if not able:
                break
            now = able[int(np.argmax([task.evaluate(row) for row in able]))]
        return task.select(on_budget(space, budget, limits, now.astype(np.float64), "greedy"))

    def _without(self, now: IntArray, group: int, grid: WidthGrid) -> IntArray | None:
        """The widths with a step less in one group; None where it has none to lose."""
        levels = grid.levels(group)
        narrower = levels[levels < now[group]][::-1]  # of two equally near ones the wider counts
        if not len(narrower):
            return None
        wanted = now[group] - max(1.0, self.step * float(grid.full[group]))
        found = now.copy()
        found[group] = narrower[np.abs(narrower - wanted).argmin()]
        return found
