"""A/A tables: how often rows that are the same method are told apart.

Rows that differ by nothing but their random numbers are exchangeable at each draw, so any exchange
of their names there is as good a table as the one that was run. Of many such tables the share that
says "better" or "worse" of any row should be at most the level of the tests: the whole procedure -
units, pairing, t tests, Holm's correction - is tried on real results, not on normal numbers.

Known shortcoming: all tables are made of the same results, so that their share varies more than
that of as many independent tables.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from randprune.bench.stats.comparison import ALPHA, Pair, compare_with_baseline
from randprune.errors import InvalidInputError

K = TypeVar("K", bound=Hashable)

TABLES = 200
LEAST = 3
"""Rows that a table must have: a baseline and two others."""


@dataclass(frozen=True, slots=True)
class SameMethod:
    """What tables of rows that are all the same say.

    Attributes:
        rows: of a table, the baseline among them. draws: configurations of each.
        tables: how many were made.
        told: how many of them call any row better or worse than the baseline.
        equivalent: the share of all comparisons that were shown to be equivalent.
        alpha: the level of the tests.
    """

    rows: int
    draws: int
    tables: int
    told: int
    equivalent: float
    alpha: float = ALPHA

    @property
    def share(self) -> float:
        """Of the tables that tell rows apart."""
        return self.told / self.tables

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share, 95 %, exact for independent tables (Clopper & Pearson 1934)."""
        # Imported here: that takes half a second, for which only an A/A check should wait.
        from scipy.stats import binomtest

        found = binomtest(self.told, self.tables).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)


def same_method(
    scores: Mapping[K, Mapping[Pair, float]],
    *,
    margin: float,
    tables: int = TABLES,
    alpha: float = ALPHA,
    resolution: float = 0.0,
    seed: int = 0,
) -> SameMethod:
    """Tables of rows of one method, their names exchanged at random at each draw.

    Args:
        scores: by row and then by (configuration, seed), as for `compare_with_baseline`; pairs that
            not all rows have are left out. The first row is the baseline.
        margin, alpha, resolution: see `compare_with_baseline`.
        tables: how many.
        seed: of the exchanges.

    Raises:
        InvalidInputError: fewer than three rows, or no pair that all of them have.
    """
    rows = list(scores)
    common = set.intersection(*(set(found) for found in scores.values())) if rows else set()
    if len(rows) < LEAST or not common:
        raise InvalidInputError(
            f"The 'scores' parameter of same_method must hold at least {LEAST} rows that share "
            f"results. Got {len(rows)} rows with {len(common)} in common."
        )
    draws: dict[Hashable, list[Pair]] = {}
    for pair in sorted(common, key=repr):
        draws.setdefault(pair[0], []).append(pair)
    rng = np.random.default_rng(seed)
    told, equivalent, compared = 0, 0, 0
    for _ in range(tables):
        table: dict[int, dict[Pair, float]] = {number: {} for number in range(len(rows))}
        for pairs in draws.values():
            # All trainings of a network stay together: they are one result.
            for number, other in enumerate(rng.permutation(len(rows)).tolist()):
                table[number].update({pair: scores[rows[other]][pair] for pair in pairs})
        found = compare_with_baseline(table, 0, margin=margin, alpha=alpha, resolution=resolution)
        told += any(c.verdict in ("better", "worse") for c in found)
        equivalent += sum(c.verdict == "equivalent" for c in found)
        compared += len(found)
    return SameMethod(len(rows), len(draws), tables, told, equivalent / compared, alpha)
