"""Optima of a proxy whose tables are weighted by what their optima turned out to be worth.

Method. A proxy adds up one table a group; what it gets wrong is, above all, how much each group's
errors matter once others are cut as well. So each table gets a factor, and factors are searched by
real evaluations: a generation draws log factors from a normal distribution about a centre, the
configurations that minimise the weighted proxies under the budget (`LagrangianSearch`) are
evaluated, and the centre moves to the mean of the best ones' log factors so far (the cross-entropy
method), while the spread shrinks. The first configuration is the optimum of the tables as they are.

Frantar & Alistarh, "SPDY: Accurate Pruning with Speedup Guarantees", ICML 2022: coefficients of
layer-wise errors, searched by the calibration loss of what they lead to. Differs from the paper:
the cross-entropy method instead of a local search in shrinking neighbourhoods, factors of measured
tables instead of coefficients of an assumed quadratic, and a Lagrangian instead of dynamic
programming, since costs here are products of neighbouring widths.

Known shortcomings. One factor a group cannot bend a table; with few generations it is
`LagrangianSearch`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from randprune.cost import Budget, FloatArray
from randprune.errors import InvalidInputError, quoted
from randprune.space import IntArray, Space
from randprune.strategies.base import check_request, check_told, strategies
from randprune.strategies.feasible import check_grid
from randprune.strategies.lagrangian import LagrangianSearch
from randprune.strategies.proxy import Tables

_TRIES = 6
_WIDER = 1.5


@dataclass(slots=True, eq=False)
class SpdySearch:
    """Optima of weighted tables; an adaptive strategy: `tell` it what its proposals were worth.

    One object serves one search. Configurations that others proposed teach it nothing.

    Args:
        tables: one array (width + 1,) per group: the error of keeping k channels, lower = better.
        spread: standard deviation of the log factors of the first generation.
        decay: what the spread is multiplied by after each generation.
        elites: how many of the best configurations give the next centre.
        min_keep: least keep ratio of a group, in [0, 1]; at least one channel always remains.
        round_to: widths are multiples of this, or the group's full width.
    """

    tables: Tables = field(repr=False)
    spread: float = 0.4
    decay: float = 0.9
    elites: int = 4
    min_keep: float = 0.1
    round_to: int = 1
    _drawn: dict[bytes, FloatArray] = field(init=False, repr=False, default_factory=dict)
    _told: list[tuple[float, FloatArray]] = field(init=False, repr=False, default_factory=list)
    _generation: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        check_grid("SpdySearch", self.min_keep, self.round_to)
        for name, most in (("spread", math.inf), ("decay", 1.0)):
            value = getattr(self, name)
            if not 0.0 < value <= most or value == math.inf:
                raise InvalidInputError(
                    f"The {name!r} parameter of SpdySearch must be above 0 and at most {most:g}. "
                    f"Got {quoted(value)} instead."
                )
        if isinstance(self.elites, bool) or not isinstance(self.elites, int) or self.elites < 1:
            raise InvalidInputError(
                "The 'elites' parameter of SpdySearch must be an integer of at least 1. "
                f"Got {quoted(self.elites)} instead."
            )

    def __repr__(self) -> str:
        return (
            f"SpdySearch(<{len(self.tables)} tables>, spread={self.spread!r}, "
            f"decay={self.decay!r}, elites={self.elites!r}, min_keep={self.min_keep!r}, "
            f"round_to={self.round_to!r})"
        )

    def ask(self, space: Space, budget: Budget, n: int, rng: np.random.Generator) -> IntArray:
        """`n` configurations, int64 (n, G), all within the budget; new ones as far as found.

        Raises:
            InfeasibleBudgetError: the budget is out of reach, or no optimum could be rounded to it.
        """
        n = check_request(n, rng)
        base = LagrangianSearch(self.tables, min_keep=self.min_keep, round_to=self.round_to)
        first = not self._drawn
        centre = np.zeros(len(space))
        if self._told:
            best = sorted(self._told, key=lambda told: -told[0])[: self.elites]
            centre = np.mean([factors for _, factors in best], axis=0)
        spread = self.spread * self.decay**self._generation
        rows: list[IntArray] = []
        if first:
            rows.append(base.ask(space, budget, 1, rng)[0])
            self._drawn[rows[0].tobytes()] = centre
        for _ in range(_TRIES):
            if len(rows) == n:
                break
            logs = centre + spread * rng.standard_normal((n - len(rows), len(space)))
            for row, place in zip(*base.weighted(space, budget, logs, rng), strict=True):
                if (key := row.tobytes()) not in self._drawn:
                    self._drawn[key] = logs[place]
                    rows.append(row)
            spread *= _WIDER  # so near the centre, too few were new
        if not rows:  # all that the neighbourhood holds is known
            rows.append(np.frombuffer(next(iter(self._drawn)), dtype=np.int64))
        return np.stack([rows[i % len(rows)] for i in range(n)])

    def tell(self, widths: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Take note that configurations `widths` (N, G) have the `values` (N,): higher = better."""
        rows, worth = check_told("SpdySearch", widths, values)
        known = [
            (value, self._drawn[row.tobytes()])
            for row, value in zip(rows, worth.tolist(), strict=True)
            if row.tobytes() in self._drawn
        ]
        if known:
            self._told.extend(known)
            self._generation += 1


strategies.register("spdy")(SpdySearch)
