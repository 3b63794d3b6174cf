"""Rank many configurations by a proxy that costs nothing, and propose the best of them.

Method. A table per group gives the error of keeping k of its channels; the proxy of a configuration
is the sum over groups. Feasible configurations come from any other strategy; the ones with the
least sum are returned.

Known shortcomings. The proxy adds up errors as if groups did not interact; the best of many draws
exploits its flaws, so let real evaluations decide among the proposals. Sampling improves slowly
with the number of draws: see `randprune.strategies.lagrangian` for the minimum itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from randprune.cost import Budget, FloatArray
from randprune.errors import InvalidInputError, quoted
from randprune.space import IntArray, Space
from randprune.strategies.base import Strategy, check_request, strategies
from randprune.strategies.random import RandomSearch

Tables = Sequence[npt.ArrayLike]

_BATCH = 1 << 16


def check_tables(space: Space, tables: Tables) -> list[FloatArray]:
    """The tables as float64 arrays (width + 1,), or an error that names the first unfit one.

    Entry k of table g is the error of keeping k channels of group g, lower = better. Entry 0 is
    never used and may be anything.
    """
    if len(tables) != len(space):
        raise InvalidInputError(
            f"The 'tables' parameter must hold one table per group, {len(space)}. "
            f"Got {len(tables)} instead."
        )
    arrays = [np.asarray(table, dtype=np.float64) for table in tables]
    for group, table in zip(space.groups, arrays, strict=True):
        if table.shape != (group.width + 1,):
            raise InvalidInputError(
                f"The table of group {group.name!r} must have shape ({group.width + 1},), "
                f"the error of keeping 0 to {group.width} channels. Got {table.shape} instead."
            )
        if not np.isfinite(table[1:]).all():
            raise InvalidInputError(
                f"The table of group {group.name!r} must be finite from 1 kept channel on."
            )
    return arrays


def proxy_errors(tables: Sequence[FloatArray], widths: IntArray) -> FloatArray:
    """Sum of the groups' errors, lower = better: int64 (N, G) -> float64 (N,)."""
    total = np.zeros(len(widths))
    for g, table in enumerate(tables):
        total += table[widths[:, g]]
    return total


def predicted(tables: Sequence[FloatArray], widths: IntArray) -> FloatArray:
    """Predicted quality, higher = better: int64 (N, G) -> float64 (N,)."""
    return -proxy_errors(tables, widths)


@dataclass(frozen=True, slots=True, eq=False)
class ProxySearch:
    """The configurations with the least proxy among many that another strategy proposes.

    Args:
        tables: one array (width + 1,) per group: the error of keeping k channels, lower = better.
        draws: how many configurations are ranked in each `ask`; at least `n` are.
        base: the strategy that proposes them.
    """

    tables: Tables = field(repr=False)
    draws: int = 1_000_000
    base: Strategy = field(default_factory=lambda: RandomSearch(law="shifted"))

    def __post_init__(self) -> None:
        if isinstance(self.draws, bool) or self.draws < 1:
            raise InvalidInputError(
                "The 'draws' parameter of ProxySearch must be an integer of at least 1. "
                f"Got {quoted(self.draws)} instead."
            )

    def __repr__(self) -> str:
        return f"ProxySearch(<{len(self.tables)} tables>, draws={self.draws!r}, base={self.base!r})"

    def ask(self, space: Space, budget: Budget, n: int, rng: np.random.Generator) -> IntArray:
        """The `n` best configurations, int64 (n, G), best first.

        Distinct ones, as far as the draws hold as many; then they repeat from the best on.

        Raises:
            InfeasibleBudgetError: whatever `base` cannot find.
        """
        n = check_request(n, rng)
        tables = check_tables(space, self.tables)
        best = np.empty((0, len(space)), dtype=np.int64)
        errors = np.empty(0)
        remaining = max(self.draws, n)
        while remaining > 0:
            batch = self.base.ask(space, budget, min(_BATCH, remaining), rng)
            remaining -= len(batch)
            rows = np.concatenate([best, batch])
            scores = np.concatenate([errors, proxy_errors(tables, batch)])
            order = _best_distinct(rows, scores, n)
            best, errors = rows[order], scores[order]
        return best[np.arange(n) % len(best)]


strategies.register("proxy")(ProxySearch)


def _best_distinct(rows: IntArray, errors: FloatArray, n: int) -> IntArray:
    """Places of the `n` (or fewer) least errors among distinct rows, best first."""
    seen: set[bytes] = set()
    kept: list[int] = []
    for place in np.argsort(errors, kind="stable").tolist():
        key = rows[place].tobytes()
        if key not in seen:
            seen.add(key)
            kept.append(place)
            if len(kept) == n:
                break
    return np.array(kept, dtype=np.int64)
