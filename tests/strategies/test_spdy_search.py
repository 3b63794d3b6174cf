from __future__ import annotations

import numpy as np
import pytest
from quadratic_spaces import chain, resnet50

from randprune.cost import Budget
from randprune.errors import InvalidInputError
from randprune.strategies import AdaptiveStrategy, LagrangianSearch, SpdySearch, proxy_errors

BUDGET = Budget("macs", 0.5)


def misled(space, seed):
    """Tables, and a value that weights them otherwise than a plain sum does."""
    rng = np.random.default_rng(seed)
    tables = []
    for width in space.widths:
        cut = np.arange(width, -1, -1) / width
        tables.append(rng.lognormal() * cut ** rng.uniform(1.2, 2.5))
    factors = rng.lognormal(sigma=0.7, size=len(space))
    weighted = [table * factor for table, factor in zip(tables, factors, strict=True)]
    return tables, lambda widths: -proxy_errors(weighted, widths)


def searched(strategy, space, value, seed, generations=20, n=5):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(generations):
        widths = strategy.ask(space, BUDGET, n, rng)
        assert BUDGET.fits(space.cost("macs"), widths).all()
        strategy.tell(widths, value(widths))
        rows.append(widths)
    return np.concatenate(rows)


@pytest.mark.parametrize("seed", range(3))
def test_feedback_beats_as_many_optima_of_perturbed_tables(seed):
    space = resnet50()
    tables, value = misled(space, seed)
    ours = searched(SpdySearch(tables), space, value, seed)
    theirs = LagrangianSearch(tables).ask(space, BUDGET, len(ours), np.random.default_rng(seed))
    start = value(ours[:1])[0]
    gained, without = value(ours).max() - start, value(theirs).max() - start
    assert gained > 1.2 * without > 0.0


def test_the_first_is_the_optimum_and_none_repeats():
    space = resnet50()
    tables, value = misled(space, 0)
    rows = searched(SpdySearch(tables), space, value, 0, generations=6)
    optimum = LagrangianSearch(tables).ask(space, BUDGET, 1, np.random.default_rng(0))
    assert np.array_equal(rows[:1], optimum)
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_same_seed_and_values_give_the_same_search():
    space = chain(64, 64, 64)
    tables, value = misled(space, 1)
    runs = [searched(SpdySearch(tables), space, value, 4, generations=4) for _ in range(2)]
    assert np.array_equal(*runs)


def test_what_others_proposed_teaches_nothing():
    space = resnet50()
    tables, value = misled(space, 2)
    alone, told = SpdySearch(tables), SpdySearch(tables)
    others = LagrangianSearch(tables).ask(space, BUDGET, 9, np.random.default_rng(9))[1:]
    told.tell(others, value(others))
    assert np.array_equal(*(searched(s, space, value, 0, generations=3) for s in (alone, told)))


def test_a_space_with_few_configurations_repeats_them():
    space = chain(3, 3)
    tables = [np.array([9.0, 2.0, 1.0, 0.0]), np.array([9.0, 1.0, 0.5, 0.0])]
    strategy, budget = SpdySearch(tables), Budget("macs", 0.55, 0.2)
    for _ in range(3):
        widths = strategy.ask(space, budget, 6, np.random.default_rng(0))
        assert widths.shape == (6, 2)
        assert budget.fits(space.cost("macs"), widths).all()
        strategy.tell(widths, np.zeros(6))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"spread": 0.0}, "'spread' parameter of SpdySearch must be above 0"),
        ({"spread": float("inf")}, "'spread' parameter"),
        ({"decay": 1.5}, "'decay' parameter of SpdySearch must be above 0 and at most 1"),
        ({"elites": 0}, "'elites' parameter of SpdySearch must be an integer of at least 1"),
        ({"elites": True}, "'elites' parameter"),
    ],
)
def test_bad_arguments_are_refused(given, words):
    with pytest.raises(InvalidInputError, match=words):
        SpdySearch([], **given)


def test_tell_wants_finite_values_for_rows():
    strategy = SpdySearch([np.array([1.0, 0.0])])
    assert isinstance(strategy, AdaptiveStrategy)
    with pytest.raises(InvalidInputError, match="must be finite"):
        strategy.tell([[1]], [float("nan")])
    with pytest.raises(InvalidInputError, match=r"widths of shape \(N, G\)"):
        strategy.tell([1], [1.0])
    assert repr(strategy) == (
        "SpdySearch(<1 tables>, spread=0.4, decay=0.9, elites=4, min_keep=0.1, round_to=1)"
    )
