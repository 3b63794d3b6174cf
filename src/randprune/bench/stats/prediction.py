"""What the best of n new random draws will be, from N that were seen: exact, for any distribution.

Of N draws x_(1) <= ... <= x_(N) and n new ones from the same distribution, the best new one lies
below x_(k) with probability

    prod_{j < n} (k + j) / (N + 1 + j),

whatever the distribution (order statistics of exchangeable draws; David & Nagaraja, "Order
statistics", 2003; with ties it lies below or at it at least as often).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from randprune.bench.stats.estimate import FloatArray, finite
from randprune.errors import InvalidInputError


def below(count: int, n: int) -> FloatArray:
    """The probability that the best of `n` new draws lies below the k-th of `count`, k = 1..count.

    Raises:
        InvalidInputError: a number below 1.
    """
    if count < 1 or n < 1:
        raise InvalidInputError(f"below takes numbers of at least 1. Got {count} and {n}.")
    k = np.arange(1, count + 1, dtype=np.float64)[:, None]
    j = np.arange(n, dtype=np.float64)
    found: FloatArray = np.exp(np.log((k + j) / (count + 1 + j)).sum(axis=1))
    return found


def predicted_best(
    scores: Sequence[float] | FloatArray, n: int, coverage: float = 0.9
) -> tuple[float | None, float | None]:
    """An interval that the best of `n` new draws lies in with this probability at least.

    Half of what is left lies on either side, at most.

    Args:
        scores: finite, higher is better, (N,).
        n: new draws.
        coverage: in (0, 1).

    Returns:
        Both ends; None where the scores are too few to give one.
    """
    x = np.sort(finite(scores, "scores", "predicted_best"))
    chance, tail = below(x.size, n), (1 - coverage) / 2
    lower, upper = np.flatnonzero(chance <= tail), np.flatnonzero(chance >= 1 - tail)
    low = float(x[lower[-1]]) if lower.size else None
    high = float(x[upper[0]]) if upper.size else None
    return low, high
