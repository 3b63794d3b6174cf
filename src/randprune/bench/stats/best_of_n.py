"""How good the best of n candidates is, from N candidates that were looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, stdtrit

from randprune.bench.stats.estimate import CONFIDENCE, FloatArray, check_confidence, finite
from randprune.errors import InvalidInputError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class BestOfN:
    """The best score among n candidates, for several n: arrays of one length.

    Attributes:
        counts: the n.
        mean: expected best of n.
        low, high: with probability `coverage`, the best of one draw of n lies between them.
        mean_low, mean_high: confidence interval of the *mean*; NaN where it is undefined.
        coverage: of the band of single draws. confidence: of the interval of the mean.
    """

    counts: IntArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    mean_low: FloatArray
    mean_high: FloatArray
    coverage: float
    confidence: float


def best_of_n(
    scores: Sequence[float] | FloatArray,
    counts: Sequence[int] | IntArray | None = None,
    coverage: float = 0.8,
    confidence: float = CONFIDENCE,
) -> BestOfN:
    """How good the best of n candidates is, from N scores and not from one order of them.

    Each n-subset of the N scores is as likely as any other, so the maximum M of n (drawn without
    replacement) has ``P(M <= x_(k)) = C(k, n) / C(N, n)`` with the k-th smallest score x_(k); the
    mean is the unbiased (U-statistic) estimate of the expected best of n new draws. Nothing is
    resampled.

    The interval of the mean is ``mean ± t(N - 1) · e`` with the jackknife's standard error
    ``e² = (N - 1) / N · sum_i (m_(-i) - mean m_(-i))²``, m_(-i) the mean without score i (Arvesen,
    Ann. Math. Statist. 1969, for U-statistics), computed in closed form. It is given for n <= N / 4
    only, where it covers 0.90 to 0.95 instead of 0.95 (normal scores, N = 20 to 100); for larger n
    the subsets share too many of their candidates.

    Known shortcoming: near n = N the band of single draws narrows to the one best score at hand,
    although N new draws would scatter.

    Args:
        scores: finite, higher is better, (N,).
        counts: the n wanted, 1..N; default all of them up to 200 and then about 100 in geometric
            steps.
        coverage: probability of the band, symmetric in the quantiles.
        confidence: of the interval of the mean.

    Raises:
        InvalidInputError: no scores, or a count outside 1..N.
    """
    if len(scores) == 0:
        raise InvalidInputError("best_of_n needs at least one score. Got none.")
    x = np.sort(finite(scores, "scores", "best_of_n"))
    check_confidence(confidence, "best_of_n")
    total = x.size
    n = _default_counts(total) if counts is None else np.asarray(counts, dtype=np.int64)
    if n.min() < 1 or n.max() > total:
        raise InvalidInputError(
            f"The 'counts' parameter of best_of_n must be within 1..{total}. "
            f"Got {n.min()}..{n.max()} instead."
        )
    cdf = _cdf_of_maximum(n, total)
    # E M = x_(N) - sum_k (x_(k+1) - x_(k)) P(M <= x_(k)): only differences, so nothing cancels.
    mean = x[-1] - cdf[:, :-1] @ np.diff(x)
    tail = (1 - coverage) / 2
    low = x[np.argmax(cdf >= tail - 1e-12, axis=1)]
    high = x[np.argmax(cdf >= 1 - tail - 1e-12, axis=1)]
    half = np.full(n.shape, np.nan)
    few = 4 * n <= total
    if few.any():
        error = _jackknife_error(x, n[few])
        quantile = float(stdtrit(total - 1, 0.5 + confidence / 2))
        half[few] = np.where(error > 0, quantile * error, np.nan)
    return BestOfN(n, mean, low, high, mean - half, mean + half, coverage, confidence)


def _cdf_of_maximum(n: IntArray, total: int) -> FloatArray:
    """P(maximum of n <= k-th smallest of `total`) = C(k, n) / C(total, n), (counts, total)."""
    k = np.arange(1, total + 1)[None, :]
    below = k < n[:, None]
    # log C(k, n) - log C(N, n); the arguments are clipped where the result is -inf.
    rest = np.where(below, 0, k - n[:, None])
    log_cdf = (
        gammaln(k + 1) - gammaln(rest + 1) - gammaln(total + 1) + gammaln(total - n + 1)[:, None]
    )
    return np.where(below, 0.0, np.exp(np.minimum(log_cdf, 0.0)))


def _jackknife_error(x: FloatArray, n: IntArray) -> FloatArray:
    """Standard error of the expected best of n for sorted scores x (N,), each n < N; (counts,)."""
    total = x.size
    cdf = _cdf_of_maximum(n, total - 1)
    weights = np.diff(cdf, axis=1, prepend=0.0)  # of the k-th smallest among N - 1 scores
    # Without score i, those below keep their rank and those above move down by one.
    below = np.cumsum(weights * x[:-1], axis=1)
    above = np.cumsum((weights * x[1:])[:, ::-1], axis=1)[:, ::-1]
    edge = np.zeros((n.size, 1))
    without = np.hstack([edge, below]) + np.hstack([above, edge])
    spread = ((without - without.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return np.asarray(np.sqrt((total - 1) / total * spread), dtype=np.float64)


def _default_counts(total: int) -> IntArray:
    if total <= 200:
        return np.arange(1, total + 1, dtype=np.int64)
    return np.unique(np.round(np.geomspace(1, total, 100)).astype(np.int64))
