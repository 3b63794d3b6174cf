"""Uniform width: the same keep ratio in every group. The control that a search has to beat.

Method. Widths are the nearest allowed ones to ratio * full; the ratio that meets the budget is
found by bisection, since the cost grows with it. Of the two roundings on either side of the budget
the nearer one is taken. Where rounding jumps over the tolerance, single groups are stepped: those
whose rounding remainder is closest to the other side, until the budget is met.

Known shortcomings. Stepped groups depart from the common ratio by up to a step each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from randprune.cost import Budget
from randprune.errors import InfeasibleBudgetError
from randprune.space import IntArray, Space
from randprune.strategies.base import check_request, strategies
from randprune.strategies.feasible import (
    WidthGrid,
    as_widths,
    check_grid,
    describe,
    require_reachable,
)
from randprune.strategies.shift import Target, step_onto_budget

_BISECTIONS = 50


@dataclass(frozen=True, slots=True)
class UniformSearch:
    """The same keep ratio everywhere.

    Args:
        min_keep: least keep ratio of a group, in [0, 1]; at least one channel always remains.
        round_to: widths are multiples of this, or the group's full width.
    """

    min_keep: float = 0.0
    round_to: int = 1

    def __post_init__(self) -> None:
        check_grid("UniformSearch", self.min_keep, self.round_to)

    def ask(self, space: Space, budget: Budget, n: int, rng: np.random.Generator) -> IntArray:
        """The one uniform configuration of this budget, `n` times, int64 (n, G).

        There is a single answer, so all rows are equal: ask for one, or evaluate distinct rows
        once. `rng` is not used.

        Raises:
            InfeasibleBudgetError: the budget is out of reach, or too narrow for integer widths.
        """
        n = check_request(n, rng)
        require_reachable(space, budget, self.min_keep, self.round_to)
        grid = WidthGrid.of(space, self.min_keep, self.round_to)
        target = Target.of(space.cost(budget.metric), budget, grid)
        low, high = self.min_keep, 1.0
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            if target.ratios(grid.snap(middle * grid.full[None]))[0] > target.aim:
                high = middle
            else:
                low = middle
        wanted = np.array([[low], [high]]) * grid.full
        widths = grid.snap(wanted)
        ratios = target.ratios(widths)
        if not target.fits(ratios).any():
            widths, ratios = step_onto_budget(widths, wanted, grid, target)
        best = int(np.argmin(np.abs(ratios - budget.ratio)))
        if not target.fits(ratios[best]):
            nearest = target.ratios(grid.snap(wanted))
            lower = f" or lower round_to (now {self.round_to})" if self.round_to > 1 else ""
            raise InfeasibleBudgetError(
                f"No feasible widths: {describe(budget)} was asked for, uniform widths come as "
                f"near as {nearest[0]:.4g} and {nearest[1]:.4g}. "
                f"Raise the tolerance (now {budget.tolerance:g}){lower}."
            )
        return np.repeat(as_widths(widths[best : best + 1]), n, axis=0)


strategies.register("uniform")(UniformSearch)
