"""Which widths are allowed, which budgets they can reach, and what to say when they cannot.

The rule for a group of `full` channels: allowed are the multiples of `round_to` up to `full`, and
`full` itself (a group can always stay whole; one narrower than `round_to` always does); of these,
the ones that keep at least `min_keep` of the group, and at least one channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from randprune.cost import LATENCY, Budget, Cost, FloatArray, QuadraticCost, StructuredCost
from randprune.errors import InfeasibleBudgetError, InvalidInputError, quoted
from randprune.space import IntArray, Space

# 0.07 * 100 is 7.000000000000001: products this close to an integer are that integer.
_FUZZ = 1e-9
_SWEEPS = 4


@dataclass(frozen=True, slots=True, eq=False)
class WidthGrid:
    """The allowed widths of each group; all arrays are float64 (G,) holding integers.

    Attributes:
        full: dense widths, always allowed.
        low: least allowed widths.
        top: greatest allowed multiples of `step`; differs from `full` in ragged groups.
        step: the distance of neighbouring widths (`round_to`).
        min_keep: the least keep ratio.
    """

    full: FloatArray
    low: FloatArray
    top: FloatArray
    step: int
    min_keep: float

    @classmethod
    def of(cls, space: Space, min_keep: float, round_to: int) -> WidthGrid:
        """The grid of a space's groups."""
        full = space.widths.astype(np.float64)
        top = round_to * np.floor(full / round_to)
        least = np.maximum(1.0, np.ceil(min_keep * full - _FUZZ))
        multiple = round_to * np.ceil(least / round_to)
        low = np.where(multiple <= top, multiple, full)
        return cls(full, low, top, round_to, min_keep)

    def snap(self, wanted: FloatArray) -> FloatArray:
        """The allowed widths nearest to `wanted` (N, G), halves upwards, as float64 (N, G).

        `wanted` must not exceed `full` by half a step; below `low` it gives `low`.
        """
        widths = wanted + 0.5 if self.step == 1 else wanted / self.step + 0.5
        np.floor(widths, out=widths)
        if self.step > 1:
            widths *= self.step
            np.minimum(widths, self.top, out=widths)
            for g in np.flatnonzero(self.top < self.full):
                whole = wanted[:, g] >= 0.5 * (self.top[g] + self.full[g])
                widths[whole, g] = self.full[g]
        np.maximum(widths, self.low, out=widths)
        return widths

    def up(self, widths: FloatArray) -> FloatArray:
        """The next greater allowed widths (..., G); `full` stays."""
        higher = widths + self.step
        return np.where(higher <= self.top, higher, self.full)

    def down(self, widths: FloatArray) -> FloatArray:
        """The next smaller allowed widths (..., G); `low` stays."""
        ragged = (widths == self.full) & (self.top < self.full)
        lower = np.where(ragged, self.top, widths - self.step)
        return np.where(lower >= self.low, lower, widths)

    def levels(self, group: int) -> FloatArray:
        """All allowed widths of one group, ascending, float64 (L,)."""
        low, top, full = self.low[group], self.top[group], self.full[group]
        levels = np.arange(low, top + 1, self.step)
        return np.append(levels, full) if levels.size == 0 or levels[-1] < full else levels


def cheapest(cost: Cost, grid: WidthGrid) -> IntArray:
    """The allowed configuration that costs least, int64 (G,).

    The least widths, for costs that grow with every width. Others are improved from there, one
    group at a time, until nothing changes: a local minimum.
    """
    current = as_widths(grid.low)
    if isinstance(cost, QuadraticCost) or not isinstance(cost, StructuredCost):
        return current
    for _ in range(_SWEEPS):
        before = current.copy()
        for group in range(len(current)):
            levels = grid.levels(group)
            current[group] = levels[int(np.argmin(cost.profile(current[None], group, levels)[0]))]
        if np.array_equal(before, current):
            break
    return current


def check_grid(owner: str, min_keep: float, round_to: int) -> None:
    """Raise where `min_keep` or `round_to` of the strategy called `owner` cannot mean anything."""
    if not 0.0 <= min_keep <= 1.0:
        raise InvalidInputError(
            f"The 'min_keep' parameter of {owner} must be the least share of a group's channels "
            f"that remains, in [0, 1]. Got {quoted(min_keep)} instead."
        )
    if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
        raise InvalidInputError(
            f"The 'round_to' parameter of {owner} must be an integer of at least 1. "
            f"Got {quoted(round_to)} instead."
        )


def reachable(
    space: Space, metric: str, min_keep: float = 0.0, round_to: int = 1
) -> tuple[float, float]:
    """The least and the greatest share of the dense cost that allowed widths leave: (low, high).

    The ends are the costs of the cheapest and of the dense configuration; `high` is 1. Not every
    ratio in between need be met exactly: widths are integers.
    """
    check_grid("reachable", min_keep, round_to)
    cost = space.cost(metric)
    low = cheapest(cost, WidthGrid.of(space, min_keep, round_to))
    return float(cost(low)) / cost.dense, 1.0


def describe(budget: Budget) -> str:
    """The budget in words, such as ``MACs 0.20±0.005``."""
    metric = {"macs": "MACs"}.get(budget.metric, budget.metric)
    return f"{metric} {_share(budget.ratio)}±{budget.tolerance:g}"


def require_reachable(
    space: Space, budget: Budget, min_keep: float, round_to: int, *, whole: float = 1.0
) -> None:
    """Raise `InfeasibleBudgetError` where no widths at all can meet the budget.

    The message gives the reachable range and the first of min_keep, round_to and ratio that helps.

    Args:
        space, budget, min_keep, round_to: which widths are allowed, and what they must cost.
        whole: the share of the space's dense cost that the message calls 1: of a widened network,
            that of the original one.
    """
    low, high = reachable(space, budget.metric, min_keep, round_to)
    ceiling = budget.ratio + budget.tolerance
    if low <= ceiling and high >= budget.ratio - budget.tolerance:
        return
    if reachable(space, budget.metric, 0.0, round_to)[0] <= ceiling:
        most = _largest_min_keep(space, budget, min_keep, round_to)
        advice = f"Lower min_keep (now {min_keep:g}) to {most:g} or less."
    elif reachable(space, budget.metric, 0.0, 1)[0] <= ceiling:
        advice = f"Lower round_to (now {round_to})."
        if min_keep > 0.0:
            advice = f"Lower round_to (now {round_to}) and min_keep (now {min_keep:g})."
    elif len(space) == 0:
        advice = "No channel group can be cut; `inspect` lists what is frozen, with the reasons."
    else:
        least = reachable(space, budget.metric, 0.0, 1)[0]
        advice = (
            f"One channel per group still leaves {_share(least / whole)}, the rest cannot be cut: "
            "raise the ratio."
        )
    asked = replace(budget, ratio=budget.ratio / whole, tolerance=budget.tolerance / whole)
    raise InfeasibleBudgetError(
        f"No feasible widths: {describe(asked)} was asked for, but "
        f"{_span(low / whole, high / whole)} can be reached with "
        f"min_keep {min_keep:g} and round_to {round_to}"
        f"{_in_milliseconds(space, budget.metric, (low, high))}. {advice}"
    )


def _in_milliseconds(space: Space, metric: str, span: tuple[float, float]) -> str:
    """The reachable range in its unit, where that says more than shares."""
    if metric != LATENCY:
        return ""
    cost = space.cost(metric)
    low, high = (share * cost.dense for share in span)
    return f" ({low:.3g}-{high:.3g} {cost.unit})"


def starved(
    budget: Budget, asked: int, found: int, draws: int, spanned: tuple[float, float], advice: str
) -> InfeasibleBudgetError:
    """The error for a budget that is within reach but that too few of the draws met."""
    start = "No feasible widths" if found == 0 else f"Only {found} of {asked} feasible widths"
    return InfeasibleBudgetError(
        f"{start}: {describe(budget)} was asked for, {draws:,} draws spanned "
        f"{_span(*spanned)}. {advice}"
    )


def as_widths(widths: FloatArray) -> IntArray:
    """Float widths that hold integers, as int64."""
    return widths.astype(np.int64)


def _largest_min_keep(space: Space, budget: Budget, min_keep: float, round_to: int) -> float:
    """The largest min_keep, to two decimals rounded down, under which the budget is reachable."""
    fits, fails = 0.0, min_keep
    for _ in range(30):
        middle = 0.5 * (fits + fails)
        low = reachable(space, budget.metric, middle, round_to)[0]
        if low <= budget.ratio + budget.tolerance:
            fits = middle
        else:
            fails = middle
    return math.floor(fits * 100.0) / 100.0


def _share(ratio: float) -> str:
    return f"{ratio:.2f}" if round(ratio, 2) == ratio else f"{ratio:.4g}"


def _span(low: float, high: float) -> str:
    digits = 2 if high - low >= 0.02 else 4
    return f"{low:.{digits}f}-{high:.{digits}f}"
