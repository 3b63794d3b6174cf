"""What the figures of a report estimate, exactly where a closed form exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from randprune.errors import InvalidInputError
from randprune.store import Latency

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class BestOfN:
    """The best score among n candidates, for several n: arrays of one length.

    `mean` is its expectation; with probability `coverage` it lies within `low`..`high`.
    """

    counts: npt.NDArray[np.int64]
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    coverage: float


def best_of_n(
    scores: Sequence[float], counts: Sequence[int] | None = None, coverage: float = 0.8
) -> BestOfN:
    """How good the best of n candidates is, from N scores and not from one order of them.

    Each n-subset of the N scores is as likely as any other, so the maximum M of n has
    ``P(M <= x_(k)) = C(k, n) / C(N, n)`` with the k-th smallest score x_(k); the mean is the
    unbiased (U-statistic) estimate of the expected best of n new draws.

    Known shortcoming: near n = N the subsets share most of their candidates, so the band narrows
    to the one best score at hand, although N new draws would scatter.

    Args:
        scores: finite, higher is better, (N,).
        counts: the n wanted, 1..N; default all of them up to 200 and then about 100 in geometric
            steps.
        coverage: probability of the band, symmetric in the quantiles.

    Raises:
        InvalidInputError: no scores, or a count outside 1..N.
    """
    x = np.sort(np.asarray(scores, dtype=np.float64))
    total = x.size
    if total == 0:
        raise InvalidInputError("best_of_n needs at least one score. Got none.")
    n = _default_counts(total) if counts is None else np.asarray(counts, dtype=np.int64)
    if n.min() < 1 or n.max() > total:
        raise InvalidInputError(
            f"The 'counts' parameter of best_of_n must be within 1..{total}. "
            f"Got {n.min()}..{n.max()} instead."
        )
    k = np.arange(1, total + 1)[None, :]
    below = k < n[:, None]
    # log C(k, n) - log C(N, n), (counts, N); the arguments are clipped where the result is -inf.
    rest = np.where(below, 0, k - n[:, None])
    log_cdf = (
        gammaln(k + 1) - gammaln(rest + 1) - gammaln(total + 1) + gammaln(total - n + 1)[:, None]
    )
    cdf = np.where(below, 0.0, np.exp(np.minimum(log_cdf, 0.0)))
    # E M = x_(N) - sum_k (x_(k+1) - x_(k)) P(M <= x_(k)): only differences, so nothing cancels.
    mean = x[-1] - cdf[:, :-1] @ np.diff(x)
    tail = (1 - coverage) / 2
    low = x[np.argmax(cdf >= tail - 1e-12, axis=1)]
    high = x[np.argmax(cdf >= 1 - tail - 1e-12, axis=1)]
    return BestOfN(n, mean, low, high, coverage)


def _default_counts(total: int) -> npt.NDArray[np.int64]:
    if total <= 200:
        return np.arange(1, total + 1, dtype=np.int64)
    return np.unique(np.round(np.geomspace(1, total, 100)).astype(np.int64))


@dataclass(frozen=True, slots=True)
class Speedup:
    """How many times faster than the dense network; `low`..`high` is the middle half.

    `paired`: taken repetition by repetition, from interleaved timings.
    """

    median: float
    low: float
    high: float
    paired: bool


def speedup(dense: Latency, other: Latency) -> Speedup | None:
    """Ratio of the dense network's seconds to the other's; None for different settings.

    Without interleaved repetitions the range divides opposite quartiles, which is wide on purpose:
    two timings of different moments also differ by what else the machine did.
    """
    if dense.setting != other.setting or not dense.seconds or not other.seconds:
        return None
    a, b = np.asarray(dense.seconds), np.asarray(other.seconds)
    if dense.interleaved and other.interleaved and a.size == b.size:
        low, median, high = np.quantile(a / b, [0.25, 0.5, 0.75])
        return Speedup(float(median), float(low), float(high), True)
    (a_low, a_mid, a_high), (b_low, b_mid, b_high) = quartiles(dense), quartiles(other)
    return Speedup(a_mid / b_mid, a_low / b_high, a_high / b_low, False)


def quartiles(latency: Latency) -> tuple[float, float, float]:
    """25 %, 50 % and 75 % quantile of the seconds."""
    low, median, high = np.quantile(np.asarray(latency.seconds), [0.25, 0.5, 0.75])
    return float(low), float(median), float(high)


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Rank correlation (tau-b) in [-1, 1]; None below three pairs or where one side is constant."""
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    # scipy.stats takes a second to import, which only reports with a proxy should wait for.
    from scipy.stats import kendalltau

    return float(kendalltau(a, b).statistic)
