"""Widths that minimise a proxy under the budget: a Lagrangian instead of a million draws.

Method. Minimise sum_g table_g[w_g] subject to a cost within the tolerance: a multiple-choice
knapsack whose weights are coupled, because the cost multiplies widths of neighbouring groups. For a
multiplier m the penalised sum, sum_g table_g[w_g] + m cost(w), is minimised over one group at a
time, exactly and over all its widths at once, until nothing changes; bisection over m meets the
budget, warm-started. The best of several starts is polished by changing one or two groups at a
time, which also reaches what no multiplier can (widths off the convex hull). A space of at most
65,536 configurations is enumerated instead, which is exact.

Proxies are wrong in details, so a single optimum is a poor pool of candidates. Further rows are the
optima of *perturbed* tables, each group's table times exp(spread * normal): diverse, yet all near
the minimum. Ranking by real evaluations is left to the caller.

Known shortcomings. Optima are local for large spaces (descent over single groups). Costs that are
no `StructuredCost` are interpolated between a few widths per group while searching; what is
returned is checked with the cost itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from randprune.cost import Budget, Cost, FloatArray, StructuredCost
from randprune.errors import InvalidInputError, quoted
from randprune.space import IntArray, Space
from randprune.strategies.base import check_request, strategies
from randprune.strategies.feasible import (
    WidthGrid,
    as_widths,
    check_grid,
    require_reachable,
)
from randprune.strategies.polish import polish
from randprune.strategies.proxy import Tables, check_tables, proxy_errors
from randprune.strategies.random import RandomSearch, draw_uniform
from randprune.strategies.shift import Target, step_onto_budget

_ENUMERATED = 1 << 16
_STARTS = 8
_RUGGED = 1024
_BISECTIONS = 26
_SWEEPS = 6
_KNOTS = 9
_TRIES = 4
# The multiplier is scale * sinh(y) for y in [-reach, reach]: both signs, many magnitudes.
_REACH = 14.0


@dataclass(frozen=True, slots=True, eq=False)
class LagrangianSearch:
    """The configuration with the least proxy, and the optima of perturbed proxies.

    Args:
        tables: one array (width + 1,) per group: the error of keeping k channels, lower = better.
        spread: standard deviation of the logarithm of the factors that perturb the tables.
        min_keep: least keep ratio of a group, in [0, 1]; at least one channel always remains.
        round_to: widths are multiples of this, or the group's full width.
    """

    tables: Tables = field(repr=False)
    spread: float = 0.5
    min_keep: float = 0.1
    round_to: int = 1

    def __post_init__(self) -> None:
        check_grid("LagrangianSearch", self.min_keep, self.round_to)
        if not 0.0 <= self.spread < math.inf:
            raise InvalidInputError(
                "The 'spread' parameter of LagrangianSearch must be at least 0. "
                f"Got {quoted(self.spread)} instead."
            )

    def __repr__(self) -> str:
        return (
            f"LagrangianSearch(<{len(self.tables)} tables>, spread={self.spread!r}, "
            f"min_keep={self.min_keep!r}, round_to={self.round_to!r})"
        )

    def ask(self, space: Space, budget: Budget, n: int, rng: np.random.Generator) -> IntArray:
        """The optimum first, then optima of perturbed tables, int64 (n, G), all within the budget.

        Distinct as far as a few rounds of perturbation find new ones; then they repeat. The first
        row hardly depends on `rng` (starting points), the others do.

        Raises:
            InfeasibleBudgetError: the budget is out of reach, or no optimum could be rounded to it.
        """
        n = check_request(n, rng)
        problem = self._problem(space, budget)
        rows = [self._optimum(problem, space, budget, rng)]
        seen = {rows[0].tobytes()}
        for _ in range(_TRIES):
            if len(rows) == n:
                break
            logs = self.spread * rng.standard_normal((n - len(rows), len(space)))
            for row in problem.solve(logs, rng)[0]:
                if row.tobytes() not in seen:
                    seen.add(row.tobytes())
                    rows.append(row)
        return np.stack([rows[i % len(rows)] for i in range(n)])

    def weighted(
        self, space: Space, budget: Budget, logs: FloatArray, rng: np.random.Generator
    ) -> tuple[IntArray, IntArray]:
        """Optima of tables times exp(`logs`) (N, G), and whose they are: (M, G) and (M,), M <= N.

        What cannot be rounded to the budget is left out.
        """
        return self._problem(space, budget).solve(logs, rng)

    def _problem(self, space: Space, budget: Budget) -> _Problem:
        tables = check_tables(space, self.tables)
        require_reachable(space, budget, self.min_keep, self.round_to)
        grid = WidthGrid.of(space, self.min_keep, self.round_to)
        target = Target.of(space.cost(budget.metric), budget, grid)
        return _Problem(tables, [grid.levels(g) for g in range(len(space))], grid, target)

    def _optimum(
        self, problem: _Problem, space: Space, budget: Budget, rng: np.random.Generator
    ) -> IntArray:
        """The feasible configuration with the least proxy that was found, (G,)."""
        grid, target = problem.grid, problem.target
        if math.prod(len(levels) for levels in problem.levels) <= _ENUMERATED:
            mesh = np.meshgrid(*problem.levels, indexing="ij")
            every = np.stack([axis.reshape(-1) for axis in mesh], axis=1)
            found = as_widths(every[target.fits(target.ratios(every))])
            if len(found):
                return np.asarray(found[int(np.argmin(proxy_errors(problem.tables, found)))])
        starts = draw_uniform(grid, rng, _STARTS)
        starts[0], starts[1] = grid.full, grid.low
        found, _ = problem.descend(np.ones_like(starts), starts)
        if not len(found) or sum(map(len, problem.levels)) <= _RUGGED:
            # With few widths the convex hull is a poor guide: start from random ones too.
            base = RandomSearch(self.min_keep, self.round_to, "shifted")
            found = np.concatenate([found, base.ask(space, budget, _STARTS, rng)])
        found = np.unique(found, axis=0)
        found = np.stack([polish(w, problem.tables, problem.levels, target) for w in found])
        return np.asarray(found[int(np.argmin(proxy_errors(problem.tables, found)))])


strategies.register("lagrangian")(LagrangianSearch)


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """One minimisation: tables and allowed widths per group, and the budget."""

    tables: Sequence[FloatArray]
    levels: Sequence[FloatArray]
    grid: WidthGrid
    target: Target

    def solve(self, logs: FloatArray, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """`descend` for tables times exp(`logs`) from random starts."""
        return self.descend(np.exp(logs), draw_uniform(self.grid, rng, len(logs)))

    def descend(self, factors: FloatArray, starts: FloatArray) -> tuple[IntArray, IntArray]:
        """Near-optimal feasible widths for tables times `factors` (N, G), and whose they are.

        The rows of `factors` that led to none are missing: (M, G) and (M,), M at most N.

        The budget's upper end is aimed at: errors fall with width, as a rule.
        """
        rows = len(factors)
        errors = [table[levels.astype(np.int64)] for table, levels in self._pairs()]
        scale = sum(float(np.ptp(error)) for error in errors) or 1.0
        ceiling = min(self.target.ratio + self.target.tolerance, 1.0)
        low, high = np.full(rows, -_REACH), np.full(rows, _REACH)
        widths = starts.copy()
        best, best_error = np.empty_like(widths), np.full(rows, np.inf)
        under, under_ratio = np.tile(self.grid.low, (rows, 1)), np.full(rows, -np.inf)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            self._sweep(widths, factors, errors, scale * np.sinh(middle))
            ratios = self.target.ratios(widths)
            total = self._weighted(widths, factors)
            better = self.target.fits(ratios) & (total < best_error)
            best[better], best_error[better] = widths[better], total[better]
            cheap = ratios <= ceiling
            nearer = cheap & (ratios > under_ratio)
            under[nearer], under_ratio[nearer] = widths[nearer], ratios[nearer]
            # A greater multiplier makes cost dearer: too dear a configuration needs a greater one.
            low, high = np.where(cheap, low, middle), np.where(cheap, middle, high)
        missing = np.flatnonzero(np.isinf(best_error))
        best[missing], ratios = step_onto_budget(
            under[missing], under[missing], self.grid, self.target
        )
        best_error[missing[self.target.fits(ratios)]] = 0.0
        led = np.flatnonzero(np.isfinite(best_error))
        return as_widths(best[led]), led

    def _pairs(self) -> list[tuple[FloatArray, FloatArray]]:
        return list(zip(self.tables, self.levels, strict=True))

    def _weighted(self, widths: FloatArray, factors: FloatArray) -> FloatArray:
        index = as_widths(widths)
        total = np.zeros(len(widths))
        for g, table in enumerate(self.tables):
            total += factors[:, g] * table[index[:, g]]
        return total

    def _sweep(
        self,
        widths: FloatArray,
        factors: FloatArray,
        errors: Sequence[FloatArray],
        multiplier: FloatArray,
    ) -> None:
        """Minimise the penalised sum over one group after the other, in place, until it is still.

        `errors` holds each group's table at its allowed widths; `multiplier` is (N,).
        """
        price = (multiplier / self.target.dense)[:, None]
        for _ in range(_SWEEPS):
            still = True
            for g, levels in enumerate(self.levels):
                penalised = price * cost_profile(self.target.cost, widths, g, levels)
                penalised += factors[:, g : g + 1] * errors[g]
                chosen = levels[np.argmin(penalised, axis=1)]
                still = still and np.array_equal(chosen, widths[:, g])
                widths[:, g] = chosen
            if still:
                return


def cost_profile(cost: Cost, widths: FloatArray, group: int, levels: FloatArray) -> FloatArray:
    """Cost (N, L) of `widths` (N, G) with one group at each of `levels` (L,), up to a constant.

    The constant may differ from row to row. Exact for a `StructuredCost`; other costs are evaluated
    at a few levels and interpolated linearly.
    """
    if isinstance(cost, StructuredCost):
        return cost.profile(widths, group, levels)
    places = np.unique(np.linspace(0, len(levels) - 1, min(_KNOTS, len(levels))).astype(np.int64))
    probes = np.repeat(widths[:, None, :], len(places), axis=1)
    probes[:, :, group] = levels[places]
    known = cost(probes)
    # Interpolation as one matrix product: row i of `weights` is the i-th hat function on `levels`.
    weights = np.stack([np.interp(levels, levels[places], hat) for hat in np.eye(len(places))])
    return np.asarray(known @ weights)
