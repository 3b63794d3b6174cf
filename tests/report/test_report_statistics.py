"""Estimates of the report against enumeration and against definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from randprune.errors import InvalidInputError
from randprune.report.statistics import best_of_n, kendall_tau, quartiles, speedup
from randprune.store import Latency

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


def test_interleaved_timings_are_compared_one_by_one() -> None:
    # A machine that turned slow half-way: pairs see through it, medians would not.
    slow = np.array([1, 1, 1, 10, 10, 10])
    dense = Latency(tuple(0.2 * slow), 64, interleaved=True)
    small = Latency(tuple(0.1 * slow), 64, interleaved=True)
    found = speedup(dense, small)
    assert found is not None
    assert (found.median, found.low, found.high) == pytest.approx((2, 2, 2))
    assert found.paired


def test_other_timings_are_compared_by_quartiles_widely() -> None:
    dense, small = Latency((2.0, 3.0, 4.0), 64), Latency((1.0, 1.5, 2.0), 64)
    found = speedup(dense, small)
    assert found is not None
    assert not found.paired
    assert found.median == 2.0
    assert (found.low, found.high) == (2.5 / 1.75, 3.5 / 1.25)
    assert quartiles(small) == (1.25, 1.5, 1.75)


@pytest.mark.parametrize(
    "other",
    [
        Latency((1.0,), 1),
        Latency((1.0,), 64, device="cuda"),
        Latency((1.0,), 64, dtype="bfloat16"),
        Latency((1.0,), 64, threads=2),
        Latency((), 64),
    ],
)
def test_timings_of_different_settings_are_not_compared(other: Latency) -> None:
    assert speedup(Latency((1.0,), 64), other) is None


def test_kendall_tau_against_its_definition() -> None:
    a, b = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]
    assert kendall_tau(a, b) == pytest.approx((5 - 1) / 6)
    assert kendall_tau(a, a) == pytest.approx(1.0)
    assert kendall_tau(a, [1.0, 1.0, 1.0, 1.0]) is None
    assert kendall_tau([1.0, 2.0], [1.0, 2.0]) is None
