"""Move configurations onto a budget: one scalar per configuration, then a few integer steps.

Method. A keep ratio r of a group, in [min_keep, 1], has the odds v / (1 - v) with
v = (r - min_keep) / (1 - min_keep). One scalar s > 0 multiplies the odds of *all* groups of a
configuration at once, v -> v s / (1 - v + v s), and is solved for such that the rounded widths meet
the budget. No group is privileged, s = 1 changes nothing, s -> 0 and s -> infinity reach the least
and the dense configuration, and cutting mirrors keeping. Among families with these properties it
keeps much of the spread: a uniform v moved to mean 0.8 has a standard deviation of 0.22, against
0.19 for an exponential tilt and 0.12 for a uniform law on a shrunken interval (0.16 and 0.27 for
powers of v and of 1 - v, which do not mirror). It needs only + - * /, which round the same on every
machine.

Known shortcomings. The step from real numbers to widths is a staircase; where one stair is higher
than the tolerance (few channels, large `round_to`), single groups are stepped afterwards, and a
configuration that still misses is given up. Only costs that grow with every width are solved well;
whatever the cost, nothing outside the tolerance is reported as fitting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from randprune.cost import Budget, Cost, FloatArray, StructuredCost
from randprune.strategies.feasible import WidthGrid, cheapest

_SOLVE_STEPS = 16
_REPAIR_STEPS = 24
_REPAIR_ELEMENTS = 1 << 22

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What is asked of the cost: computed once, so that every check is the one `Budget` makes."""

    cost: Cost
    dense: float
    ratio: float
    tolerance: float
    aim: float

    @classmethod
    def of(cls, cost: Cost, budget: Budget, grid: WidthGrid) -> Target:
        """The target of a budget that is reachable on `grid`; `aim` is its nearest reachable."""
        dense = cost.dense
        low = float(cost(cheapest(cost, grid))) / dense
        aim = min(max(budget.ratio, low), 1.0)
        return cls(cost, dense, budget.ratio, budget.tolerance, aim)

    def ratios(self, widths: FloatArray) -> FloatArray:
        """Share of the dense cost, (..., G) -> (...)."""
        return np.asarray(self.cost(widths) / self.dense)

    def fits(self, ratios: FloatArray) -> BoolArray:
        """Which shares are within the tolerance: `Budget.fits`, to the last bit."""
        return np.asarray(np.abs(ratios - self.ratio) <= self.tolerance)


@dataclass(frozen=True, slots=True)
class Start:
    """Where the solver starts, and how fast the cost grows there: both for a typical draw.

    `theta` in (0, 1) stands for the scalar s = theta / (1 - theta).
    """

    theta: float = 0.5
    slope: float = 1.0


def odds(uniform: FloatArray) -> FloatArray:
    """u / (1 - u) for numbers in [0, 1)."""
    return uniform / (1.0 - uniform)


def width_odds(widths: npt.ArrayLike, grid: WidthGrid) -> FloatArray:
    """The odds of widths (..., G), so that existing configurations can be moved to a budget.

    Both ends are taken half a step inwards; at the very end the odds would be 0 or infinite, which
    no scalar could move.
    """
    w = np.asarray(widths, dtype=np.float64)
    least = grid.min_keep * grid.full
    span = np.maximum(grid.full - least, 0.5)
    margin = np.minimum(0.5 * grid.step / span, 0.5)
    v = np.clip((w - least) / span, 0.5 * margin, 1.0 - 0.5 * margin)
    return odds(v)


def moved_widths(odds_: FloatArray, theta: FloatArray, grid: WidthGrid) -> FloatArray:
    """Real-valued widths after multiplying the odds (N, G) by theta / (1 - theta), (N,)."""
    wanted = odds_ * (theta / (1.0 - theta))[:, None]
    wanted /= 1.0 + wanted
    least = grid.min_keep * grid.full
    wanted *= grid.full - least
    wanted += least
    return wanted


def typical_start(odds_: FloatArray, grid: WidthGrid, target: Target) -> Start:
    """The theta at which the mean cost of a sample (N, G) is the target, and the slope there."""

    def mean(theta: float) -> float:
        widths = grid.snap(moved_widths(odds_, np.full(len(odds_), theta), grid))
        return float(target.ratios(widths).mean())

    low, high = 0.0, 1.0
    for _ in range(20):
        middle = 0.5 * (low + high)
        if mean(middle) < target.aim:
            low = middle
        else:
            high = middle
    theta = 0.5 * (low + high)
    around = 0.125 * min(theta, 1.0 - theta)
    slope = (mean(theta + around) - mean(theta - around)) / (2.0 * around)
    return Start(theta, max(slope, 1e-3))


def onto_budget(
    odds_: FloatArray, grid: WidthGrid, target: Target, start: Start
) -> tuple[FloatArray, FloatArray]:
    """Widths float64 (N, G) that these odds (N, G) give on the budget, and their cost ratios (N,).

    Each row is solved by itself: neither the other rows nor their number changes it.
    """
    count = len(odds_)
    widths, wanted = np.empty_like(odds_), np.empty_like(odds_)
    reached = np.empty(count)
    rows = np.arange(count)
    # One column per unsolved row: bracket, scalar, and the scalar and error before it.
    state = np.zeros((5, count))
    state[1], state[2] = 1.0, start.theta
    for step in range(_SOLVE_STEPS):
        left, right, theta, last_theta, last_error = state
        real = moved_widths(odds_, theta, grid)
        snapped = grid.snap(real)
        ratios = target.ratios(snapped)
        stay = ~target.fits(ratios)
        leaving = ~stay if step < _SOLVE_STEPS - 1 else np.ones_like(stay)
        widths[rows[leaving]] = snapped[leaving]
        wanted[rows[leaving]] = real[leaving]
        reached[rows[leaving]] = ratios[leaving]
        if leaving.all():
            break
        error = ratios - target.aim
        over = error > 0.0
        left, right = np.where(over, left, theta), np.where(over, theta, right)
        following = _next_theta(step, theta, error, last_theta, last_error, start.slope)
        # Every third step halves the bracket, so that a staircase cannot hold the secant up.
        usable = (following > left) & (following < right) & (step % 3 != 2)
        following = np.where(usable, following, 0.5 * (left + right))
        state = np.stack([left, right, following, theta, error])[:, stay]
        rows, odds_ = rows[stay], odds_[stay]
    missing = np.flatnonzero(~target.fits(reached))
    if missing.size:
        widths[missing], reached[missing] = step_onto_budget(
            widths[missing], wanted[missing], grid, target
        )
    return widths, reached


def _next_theta(
    step: int,
    theta: FloatArray,
    error: FloatArray,
    last_theta: FloatArray,
    last_error: FloatArray,
    slope: float,
) -> FloatArray:
    """Newton with the typical slope first, then the secant; 2.0 (outside) where it is flat."""
    if step == 0:
        return theta - error / slope
    rise = error - last_error
    flat = rise == 0.0
    secant = theta - error * (theta - last_theta) / np.where(flat, 1.0, rise)
    return np.where(flat, 2.0, secant)


def step_onto_budget(
    widths: FloatArray, wanted: FloatArray, grid: WidthGrid, target: Target
) -> tuple[FloatArray, FloatArray]:
    """`widths` (N, G) after single-group steps towards the budget, and their cost ratios (N,).

    One step a round: of the steps that land within the tolerance, the one to the width nearest to
    the real-valued `wanted` (N, G); where none does, the one that comes closest to the budget. The
    remainders of rounding are as good as random, so that no group is preferred. Rows that stop
    coming closer are given up.
    """
    stepped, ratios = np.empty_like(widths), np.empty(len(widths))
    rows = max(1, _REPAIR_ELEMENTS // max(1, widths.shape[1] ** 2))
    for i in range(0, len(widths), rows):
        block = slice(i, i + rows)
        stepped[block], ratios[block] = _step_block(
            widths[block].copy(), wanted[block], grid, target
        )
    return stepped, ratios


def _step_block(
    widths: FloatArray, wanted: FloatArray, grid: WidthGrid, target: Target
) -> tuple[FloatArray, FloatArray]:
    ratios = target.ratios(widths)
    active = np.flatnonzero(~target.fits(ratios))
    for _ in range(_REPAIR_STEPS):
        if active.size == 0:
            break
        current = widths[active]
        error = np.abs(ratios[active] - target.aim)
        over = ratios[active] > target.aim
        stepped = np.where(over[:, None], grid.down(current), grid.up(current))
        after = neighbour_costs(target.cost, current, stepped - current) / target.dense
        away = np.abs(after - target.aim)
        inside = target.fits(after)
        detour = np.abs(stepped - wanted[active]) / grid.full
        choice = np.where(
            inside.any(axis=1),
            np.argmin(np.where(inside, detour, np.inf), axis=1),
            np.argmin(away, axis=1),
        )
        row = np.arange(active.size)
        better = (away[row, choice] < error) | inside[row, choice]
        active, choice = active[better], choice[better]
        widths[active, choice] = stepped[better][np.arange(active.size), choice]
        ratios[active] = target.ratios(widths[active])
        active = active[~target.fits(ratios[active])]
    return widths, ratios


def neighbour_costs(cost: Cost, widths: FloatArray, steps: FloatArray) -> FloatArray:
    """Cost of `widths` (N, G) after stepping each group alone by `steps` (N, G) -> (N, G)."""
    if isinstance(cost, StructuredCost):
        return cost.moved(widths, steps)
    groups = widths.shape[1]
    neighbours = np.repeat(widths[:, None, :], groups, axis=1)
    each = np.arange(groups)
    neighbours[:, each, each] += steps
    return np.asarray(cost(neighbours))
