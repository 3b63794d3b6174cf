"""The best of n candidates against enumeration, and the coverage of its interval."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from randprune.bench.stats import best_of_n
from randprune.errors import InvalidInputError

SCORES = st.lists(st.floats(-1, 1), min_size=1, max_size=9)


@settings(deadline=None, max_examples=60)
@given(SCORES)
def test_best_of_n_is_the_mean_over_all_subsets(scores: list[float]) -> None:
    curve = best_of_n(scores)
    assert curve.counts.tolist() == list(range(1, len(scores) + 1))
    for n, mean in zip(curve.counts.tolist(), curve.mean.tolist(), strict=True):
        maxima = [max(subset) for subset in itertools.combinations(scores, n)]
        assert mean == pytest.approx(np.mean(maxima), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(SCORES)
def test_band_of_best_of_n_is_that_of_all_subsets(scores: list[float]) -> None:
    curve = best_of_n(scores, coverage=0.8)
    for i, n in enumerate(curve.counts.tolist()):
        maxima = np.sort([max(subset) for subset in itertools.combinations(scores, n)])
        assert curve.low[i] in scores
        assert curve.high[i] in scores
        # Quantiles: at most 10 % of the subsets lie below the band, at most 10 % above it.
        assert np.mean(maxima < curve.low[i]) <= 0.1 + 1e-9
        assert np.mean(maxima > curve.high[i]) <= 0.1 + 1e-9
        assert np.mean(maxima <= curve.low[i]) >= 0.1 - 1e-9
        assert np.mean(maxima <= curve.high[i]) >= 0.9 - 1e-9


def test_best_of_n_of_a_large_pool_follows_the_law_of_uniform_maxima() -> None:
    total = 20_000
    curve = best_of_n((np.arange(total) + 0.5) / total)
    n = curve.counts
    assert len(n) <= 100
    assert n[0] == 1
    assert n[-1] == total
    few = n <= 200
    assert curve.mean[few] == pytest.approx(n[few] / (n[few] + 1), abs=2e-4)
    assert curve.low[few] == pytest.approx(0.1 ** (1 / n[few]), abs=2e-3)
    assert curve.high[few] == pytest.approx(0.9 ** (1 / n[few]), abs=2e-3)
    assert curve.mean[-1] == (total - 0.5) / total
    assert np.all(np.diff(curve.mean) >= 0)


def test_best_of_n_does_not_depend_on_the_order() -> None:
    scores = np.random.default_rng(0).normal(size=50)
    forward, backward = best_of_n(scores), best_of_n(scores[::-1])
    assert np.array_equal(forward.mean, backward.mean)
    assert np.array_equal(best_of_n(scores, [5, 50]).mean, forward.mean[[4, 49]])


def test_best_of_n_needs_scores_and_counts_among_them() -> None:
    with pytest.raises(InvalidInputError, match="at least one score"):
        best_of_n([])
    with pytest.raises(InvalidInputError, match=r"'counts' parameter .* 1\.\.3\. Got 0\.\.4"):
        best_of_n([1.0, 2.0, 3.0], [0, 4])


def test_jackknife_error_is_that_of_leaving_each_score_out() -> None:
    scores = np.random.default_rng(2).normal(size=13)
    curve = best_of_n(scores, [1, 2, 3], confidence=0.9)
    without = np.array([best_of_n(np.delete(scores, i), [1, 2, 3]).mean for i in range(13)])
    error = np.sqrt(12 / 13 * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    half = 1.782287555649  # t quantile 0.95 at 12 degrees of freedom
    assert curve.mean_high - curve.mean == pytest.approx(half * error, rel=1e-9)
    assert curve.mean - curve.mean_low == pytest.approx(half * error, rel=1e-9)
    # The best of one is the mean, and its jackknife error is s / sqrt(n).
    assert error[0] == pytest.approx(scores.std(ddof=1) / 13**0.5)


def test_interval_of_the_mean_is_left_out_where_it_would_not_hold() -> None:
    curve = best_of_n(np.random.default_rng(0).normal(size=20))
    assert np.isfinite(curve.mean_low[:5]).all()
    assert np.isnan(curve.mean_low[5:]).all()
    assert np.isnan(best_of_n([0.5, 0.5, 0.5, 0.5, 0.5]).mean_low).all()


def test_interval_of_the_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(400):
        curve = best_of_n(rng.random(40), [8])  # the best of 8 uniform numbers: 8 / 9
        hits += bool(curve.mean_low[0] <= 8 / 9 <= curve.mean_high[0])
    assert 0.88 <= hits / 400 <= 0.98
