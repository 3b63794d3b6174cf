"""Widths that a method would like, moved onto the budget: the last step of many methods."""

from __future__ import annotations

import numpy as np

from randprune.bench.methods.base import Limits
from randprune.cost import Budget, FloatArray
from randprune.errors import InfeasibleBudgetError
from randprune.space import IntArray, Space
from randprune.strategies.feasible import WidthGrid, as_widths, describe
from randprune.strategies.shift import Target, step_onto_budget


def on_budget(
    space: Space, budget: Budget, limits: Limits, wanted: FloatArray, method: str
) -> IntArray:
    """Allowed widths (G,) within the budget, single groups stepped away from those that are wanted.

    Args:
        space: the groups.
        budget: what the widths meet.
        limits: least widths and multiples.
        wanted: (G,), any real numbers.
        method: what messages call the one who wants them.

    Raises:
        InfeasibleBudgetError: no steps from the wanted widths meet the budget.
    """
    grid = WidthGrid.of(space, limits.min_keep, limits.round_to)
    target = Target.of(space.cost(budget.metric), budget, grid)
    rows = np.asarray(wanted, dtype=np.float64)[None]
    widths, ratios = step_onto_budget(grid.snap(rows.copy()), rows, grid, target)
    if not target.fits(ratios)[0]:
        raise InfeasibleBudgetError(
            f"No feasible widths: {describe(budget)} was asked for, {method} comes as near "
            f"as {float(ratios[0]):.4g}. Raise the tolerance (now {budget.tolerance:g})."
        )
    found: IntArray = as_widths(widths)[0]
    return found
