from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from randprune.cost import Budget, Cost, QuadraticCost
from randprune.errors import InvalidInputError


def random_cost(groups: int, seed: int = 0) -> QuadraticCost:
    rng = np.random.default_rng(seed)
    full = rng.integers(8, 2048, groups)
    upper = np.triu(rng.integers(0, 5000, (groups, groups)) * (rng.random((groups, groups)) < 0.3))
    quadratic = (upper + upper.T) / 2
    linear = rng.integers(0, 10**6, groups).astype(np.float64)
    return QuadraticCost("macs", "MACs", quadratic, linear, 12345.0, full)


def with_integers(cost: QuadraticCost, widths: np.ndarray) -> int:
    """The polynomial in Python's unlimited integers, times two."""
    w = [int(x) for x in widths]
    doubled = (2 * cost.quadratic).astype(object)
    total = sum(int(doubled[i, j]) * w[i] * w[j] for i in range(len(w)) for j in range(len(w)))
    return total + sum(2 * int(a) * x for a, x in zip(cost.linear, w, strict=True)) + 2 * 12345


def test_equals_integer_arithmetic_exactly():
    cost = random_cost(37)
    rng = np.random.default_rng(1)
    widths = rng.integers(1, cost.full + 1, (50, 37))
    assert [2 * int(c) for c in cost(widths)] == [with_integers(cost, w) for w in widths]
    assert 2 * int(cost.dense) == with_integers(cost, cost.full)


def test_shapes():
    cost = random_cost(5)
    w = np.random.default_rng(0).integers(1, 8, (3, 4, 5))
    assert cost(w).shape == (3, 4)
    assert cost(w).dtype == np.float64
    assert cost(w[0, 0]).shape == ()
    assert cost(w[:0]).shape == (0, 4)
    assert cost(w[0, 0].tolist()) == cost(w)[0, 0]
    assert cost.gradient(w).shape == (3, 4, 5)
    assert cost.moved(w, np.ones_like(w)).shape == (3, 4, 5)
    assert isinstance(cost, Cost)


def test_large_batches_equal_single_rows():
    cost = random_cost(23)
    w = np.random.default_rng(0).integers(1, cost.full + 1, (7001, 23))
    batch = cost(w)
    assert all(batch[i] == cost(w[i]) for i in (0, 1, 2849, 2850, 5000, 7000))
    assert np.array_equal(batch, cost(w.astype(np.int16)))
    assert np.array_equal(batch, cost(np.asfortranarray(w)))


def test_no_groups():
    empty = np.zeros(0)
    cost = QuadraticCost("macs", "MACs", np.zeros((0, 0)), empty, 7.0, empty.astype(np.int64))
    assert cost.dense == 7.0
    assert np.array_equal(cost(np.zeros((3, 0), dtype=np.int64)), [7.0, 7.0, 7.0])


def test_gradient_is_the_central_difference():
    cost = random_cost(6)
    w = np.random.default_rng(2).integers(2, 8, 6)
    for g in range(6):
        step = np.eye(6, dtype=np.int64)[g]
        # Exact for a quadratic: its third derivative is zero.
        assert cost.gradient(w)[g] == (cost(w + step) - cost(w - step)) / 2


def test_moved_is_the_cost_after_each_step():
    cost = random_cost(6)
    rng = np.random.default_rng(3)
    w, steps = rng.integers(5, 9, (4, 6)), rng.integers(-4, 5, (4, 6))
    moved = cost.moved(w, steps)
    for row in range(4):
        for g in range(6):
            after = w[row].copy()
            after[g] += steps[row, g]
            assert moved[row, g] == cost(after)


@given(st.integers(0, 12), st.integers(0, 2**32))
def test_json_round_trip_is_bit_equal(groups, seed):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.standard_normal((groups, groups)))
    quadratic = upper + np.triu(upper, 1).T
    cost = QuadraticCost(
        "x", "u", quadratic, rng.standard_normal(groups), math.pi, rng.integers(1, 9, groups)
    )
    back = QuadraticCost.from_json(json.loads(json.dumps(cost.to_json())))
    assert (back.name, back.unit, back.constant) == (cost.name, cost.unit, cost.constant)
    for name in ("quadratic", "linear", "full"):
        before, after = getattr(cost, name), getattr(back, name)
        assert before.dtype == after.dtype
        assert before.tobytes() == after.tobytes()


def test_wrong_widths_are_refused():
    with pytest.raises(InvalidInputError, match=r"axis of 5 groups\. Got shape \(2, 4\)"):
        random_cost(5)(np.ones((2, 4)))


def test_wrong_coefficients_are_refused():
    full, linear, square = np.array([2, 3]), np.zeros(2), np.zeros((2, 2))
    with pytest.raises(InvalidInputError, match=r"needs a quadratic part of shape \(2, 2\)"):
        QuadraticCost("macs", "MACs", np.zeros((3, 3)), linear, 0.0, full)
    with pytest.raises(InvalidInputError, match="not finite"):
        QuadraticCost("macs", "MACs", square, linear, math.nan, full)
    with pytest.raises(InvalidInputError, match="must be symmetric"):
        QuadraticCost("macs", "MACs", np.triu(np.ones((2, 2))), linear, 0.0, full)


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.0001, math.nan])
def test_budget_ratio_is_what_remains(ratio):
    with pytest.raises(InvalidInputError, match="share that remains, in \\(0, 1\\]"):
        Budget("macs", ratio)


@pytest.mark.parametrize("tolerance", [0.0, -0.1, 1.0, math.nan])
def test_budget_tolerance(tolerance):
    with pytest.raises(InvalidInputError, match="'tolerance' parameter of Budget"):
        Budget("macs", 0.5, tolerance=tolerance)


def test_budget_fits_within_the_tolerance_on_both_sides():
    cost = QuadraticCost("p", "u", np.zeros((1, 1)), np.ones(1), 0.0, np.array([1024]))
    widths = np.array([[495], [496], [512], [528], [529]])
    assert Budget("p", 0.5, 1 / 64).fits(cost, widths).tolist() == [False, True, True, True, False]
