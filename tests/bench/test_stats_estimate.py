"""Means, variances and rank correlations: by hand, by simulation, and with too little data."""

from __future__ import annotations

import numpy as np
import pytest

from randprune.bench.stats import (
    at_equal_compute,
    candidates_affordable,
    kendall_tau,
    mean_interval,
    variance_split,
)
from randprune.errors import InvalidInputError


def covered(interval: tuple[float, float] | None, truth: float) -> bool:
    assert interval is not None
    return interval[0] <= truth <= interval[1]


# ---------------------------------------------------------------------------- means


def test_t_interval_by_hand() -> None:
    found = mean_interval([1.0, 2.0, 3.0])  # s = 1, t(2, 0.975) = 4.302653
    assert found.value == 2.0
    assert found.interval == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert (found.count, found.confidence, found.note) == (3, 0.95, "")


def test_t_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    for n in (2, 3, 8):
        hits = [covered(mean_interval(rng.normal(0.9, 0.02, n)).interval, 0.9) for _ in range(800)]
        assert 0.93 <= np.mean(hits) <= 0.97


def test_one_seed_has_no_interval_and_two_have_a_wide_one() -> None:
    one = mean_interval([0.9])
    assert (one.value, one.interval, one.note) == (0.9, None, "one value: no interval")
    two = mean_interval([0.90, 0.92])
    assert two.interval == pytest.approx((0.91 - 0.12706, 0.91 + 0.12706), abs=1e-4)
    assert "wide" in two.note


def test_equal_values_have_no_interval_of_width_zero() -> None:
    # 0.1 + 0.2 is not 0.3: rounding in the last place is no spread either.
    for values in ([0.3, 0.3, 0.3], [0.3, 0.1 + 0.2]):
        found = mean_interval(values)
        assert found.interval is None
        assert "equal: their spread is unknown" in found.note
    rounded = mean_interval([0.9, 0.9, 0.9], resolution=1e-4)
    assert rounded.interval == pytest.approx((0.9 - 7.17e-5, 0.9 + 7.17e-5), rel=1e-3)


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [[0.5]]])
def test_a_mean_needs_finite_values(values: list[float]) -> None:
    with pytest.raises(InvalidInputError, match="'values' parameter of mean_interval"):
        mean_interval(values)


def test_confidence_is_between_0_and_1() -> None:
    with pytest.raises(InvalidInputError, match=r"between 0 and 1. Got 95 instead"):
        mean_interval([1.0, 2.0], confidence=95)


# ---------------------------------------------------------------------------- variances


def simulated(
    rng: np.random.Generator, sizes: tuple[int, ...], configuration: float, training: float
) -> dict[object, np.ndarray]:
    return {
        c: 0.9 + configuration * rng.normal() + training * rng.normal(size=size)
        for c, size in enumerate(sizes)
    }


@pytest.mark.parametrize("sizes", [(3,) * 6, (1, 2, 4, 3, 1, 5)])
def test_variance_split_recovers_planted_variances(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    splits = [variance_split(simulated(rng, sizes, 0.02, 0.01)) for _ in range(400)]
    parts = [(s.configuration, s.training) for s in splits]
    configuration = [c for c, _ in parts if c is not None]
    training = [t for _, t in parts if t is not None]
    assert len(configuration) == len(training) == 400
    assert np.mean([c.value for c in configuration]) == pytest.approx(4e-4, rel=0.12)
    assert np.mean([t.value for t in training]) == pytest.approx(1e-4, rel=0.08)
    assert 0.91 <= np.mean([covered(c.interval, 4e-4) for c in configuration]) <= 0.99
    assert 0.92 <= np.mean([covered(t.interval, 1e-4) for t in training]) <= 0.98


def test_balanced_variance_split_by_hand() -> None:
    # Means 2 and 6, within squares 2 + 2 over 2 df; between mean square 2 * (4 + 4) = 16.
    split = variance_split({"a": [1.0, 3.0], "b": [5.0, 7.0]})
    assert split.training is not None
    assert split.configuration is not None
    assert split.training.value == pytest.approx(2.0)
    assert split.configuration.value == pytest.approx((16 - 2) / 2)
    assert split.share == pytest.approx(7 / 9)
    assert not split.clamped


def test_a_negative_variance_is_clamped_and_said() -> None:
    split = variance_split({"a": [1.0, 3.0], "b": [1.5, 2.5], "c": [0.0, 4.0]})
    assert split.configuration is not None
    assert split.configuration.value == 0.0
    assert split.clamped
    assert "set to 0" in split.note


def test_what_cannot_be_split_is_said() -> None:
    once = variance_split({"a": [1.0], "b": [2.0]})
    assert (once.configuration, once.training, once.share) == (None, None, None)
    assert "cannot be told apart" in once.note
    single = variance_split({"a": [1.0, 2.0, 4.0]})
    assert single.configuration is None
    assert single.training is not None
    assert "one configuration" in single.note
    with pytest.raises(InvalidInputError, match="at least one configuration"):
        variance_split({})


# ---------------------------------------------------------------------------- ranks


def test_kendall_tau_against_scipy_with_and_without_ties() -> None:
    from scipy.stats import kendalltau

    rng = np.random.default_rng(3)
    for levels in (3, 10, 10_000):
        a, b = rng.integers(0, levels, 50), rng.integers(0, levels, 50)
        found = kendall_tau(a, a + b)
        assert found is not None
        assert found.value == pytest.approx(kendalltau(a, a + b).statistic)


def test_kendall_tau_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=50), rng.normal(size=50)
    whole = kendall_tau(a, b)
    monkeypatch.setattr("randprune.bench.stats.ranks._BLOCK", 7)
    assert kendall_tau(a, b) == whole


def test_interval_of_kendall_tau_covers_that_of_the_normal_law() -> None:
    rng = np.random.default_rng(6)
    rho = 0.6
    truth = 2 / np.pi * np.arcsin(rho)
    hits = []
    for _ in range(400):
        a = rng.normal(size=30)
        found = kendall_tau(a, rho * a + 0.8 * rng.normal(size=30))
        assert found is not None
        hits.append(covered(found.interval, truth))
    assert 0.92 <= np.mean(hits) <= 0.99


def test_repeats_of_one_network_make_no_interval_narrower() -> None:
    rng = np.random.default_rng(5)
    rho, covered, naive = 0.6, 0, 0
    truth = 2 / np.pi * np.arcsin(rho)
    for _ in range(300):
        a = rng.normal(size=12)
        b = rho * a + 0.8 * rng.normal(size=12)
        x, y, of = (np.repeat(values, 4) for values in (a, b, np.arange(12)))
        alone, repeated = kendall_tau(x, y), kendall_tau(x, y, clusters=of.tolist())
        assert alone is not None
        assert repeated is not None
        assert repeated.value == alone.value
        assert (repeated.count, alone.count) == (12, 48)
        assert repeated.interval is not None
        assert alone.interval is not None
        covered += repeated.interval[0] <= truth <= repeated.interval[1]
        naive += alone.interval[0] <= truth <= alone.interval[1]
    assert covered >= 0.92 * 300
    assert naive <= 0.80 * 300


def test_clusters_that_are_too_few_give_no_interval() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=16), rng.normal(size=16)
    few = kendall_tau(a, b, clusters=[i % 4 for i in range(16)])
    assert few is not None
    assert few.interval is None
    assert few.note == "4 groups of networks are too few for an interval"
    # A cluster each is no cluster at all.
    assert kendall_tau(a, b, clusters=range(16)) == kendall_tau(a, b)


def test_kendall_tau_says_where_it_is_undefined() -> None:
    assert kendall_tau([1.0, 2.0], [1.0, 2.0]) is None
    assert kendall_tau([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]) is None
    few = kendall_tau([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0])
    assert few is not None
    assert few.value == pytest.approx((5 - 1) / 6)
    assert (few.interval, few.note) == (None, "4 pairs are too few for an interval")
    same = kendall_tau(np.arange(9.0), np.arange(9.0))
    assert same is not None
    assert (same.value, same.interval) == (1.0, None)
    assert "in the same order" in same.note
    with pytest.raises(InvalidInputError, match=r"one length. Got 3 and 2"):
        kendall_tau([1.0, 2.0, 3.0], [1.0, 2.0])


# ---------------------------------------------------------------------------- compute


def test_equal_compute_takes_the_last_point_that_is_paid_for() -> None:
    one = ([1e12, 4e12, 2e12], [0.80, 0.90, 0.88])
    two = ([1e12, 2e12, 4e12], [0.82, 0.81, 0.92])
    found = at_equal_compute([one, two], 3e12)
    assert found is not None
    assert found.value == pytest.approx((0.88 + 0.81) / 2)  # the last, not the best
    assert at_equal_compute([one, two], 0.5e12) is None
    with pytest.raises(InvalidInputError, match="at least one curve"):
        at_equal_compute([], 1.0)
    with pytest.raises(InvalidInputError, match="as many accuracies as costs"):
        at_equal_compute([([1.0, 2.0], [0.5])], 1.0)


def test_candidates_affordable() -> None:
    assert candidates_affordable(10.0, 4.0, 2.0) == 3
    assert candidates_affordable(0.7, 0.0, 0.1) == 7  # not 6, by rounding
    assert candidates_affordable(1.0, 4.0, 2.0) == 0
    with pytest.raises(InvalidInputError, match="must be positive"):
        candidates_affordable(1.0, 0.0, 0.0)
