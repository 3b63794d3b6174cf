from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from quadratic_spaces import StaircaseLatency, chain, make_space, resnet50, spaces

from randprune.cost import Budget
from randprune.errors import InfeasibleBudgetError, InvalidInputError
from randprune.strategies import (
    LagrangianSearch,
    ProxySearch,
    RandomSearch,
    Strategy,
    lagrangian as lagrangian_module,
    proxy as proxy_module,
    proxy_errors,
)
from randprune.strategies.feasible import WidthGrid


def falling_tables(space, rng) -> list[np.ndarray]:
    """Errors that fall with the width, as reconstruction errors do; groups matter differently."""
    tables = []
    for width in space.widths:
        energy = np.sort(rng.gamma(0.5, size=width)) * rng.lognormal(sigma=1.0)
        tables.append(np.concatenate([[np.inf], np.cumsum(energy[::-1])[::-1][1:], [0.0]]))
    return tables


def least_error(space, budget, tables, min_keep, round_to=1) -> float:
    """By brute force; infinite where nothing is feasible."""
    grid = WidthGrid.of(space, min_keep, round_to)
    every = np.array(list(product(*(grid.levels(g) for g in range(len(space))))), dtype=np.int64)
    feasible = every[budget.fits(space.cost(budget.metric), every)]
    return float(proxy_errors(tables, feasible).min()) if len(feasible) else np.inf


def test_proxy_errors_sums_the_tables():
    tables = [np.array([9.0, 1.0, 0.5]), np.array([9.0, 2.0])]
    assert proxy_errors(tables, np.array([[1, 1], [2, 1]])).tolist() == [3.0, 2.5]


def test_best_of_many_draws():
    space, budget = resnet50(), Budget("macs", 0.5)
    tables = falling_tables(space, np.random.default_rng(0))
    base = RandomSearch(law="shifted")
    rng = np.random.default_rng(5)
    best = ProxySearch(tables, draws=5000, base=base).ask(space, budget, 20, rng)
    drawn = base.ask(space, budget, 5000, np.random.default_rng(5))
    errors = proxy_errors(tables, best)
    assert (np.diff(errors) >= 0).all()
    assert np.array_equal(errors, np.sort(proxy_errors(tables, drawn))[:20])
    assert len(np.unique(best, axis=0)) == 20


def test_ranking_goes_through_all_batches(monkeypatch):
    monkeypatch.setattr(proxy_module, "_BATCH", 64)
    space, budget = chain(16, 16), Budget("macs", 0.5, 0.02)
    tables = falling_tables(space, np.random.default_rng(0))
    best = ProxySearch(tables, draws=3000).ask(space, budget, 3, np.random.default_rng(0))
    assert proxy_errors(tables, best)[0] == least_error(space, budget, tables, 0.1)


def test_small_spaces_repeat_from_the_best_on():
    # Feasible are (1, 2) and (2, 1).
    space, budget = make_space([2, 2], [(0, 1, 1.0)]), Budget("macs", 0.5, 0.01)
    tables = [np.array([9.0, 2.0, 0.0]), np.array([9.0, 1.0, 0.0])]
    widths = ProxySearch(tables, draws=50).ask(space, budget, 5, np.random.default_rng(0))
    assert widths.tolist() == [[2, 1], [1, 2], [2, 1], [1, 2], [2, 1]]


@given(spaces(max_groups=4, max_width=9), st.floats(0.1, 1.0), st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_small_spaces_are_solved_exactly(space, ratio, seed):
    budget = Budget("macs", ratio, 0.05)
    rng = np.random.default_rng(seed)
    tables = falling_tables(space, rng)
    least = least_error(space, budget, tables, 0.1)
    strategy = LagrangianSearch(tables)
    if np.isinf(least):
        with pytest.raises(InfeasibleBudgetError):
            strategy.ask(space, budget, 1, rng)
        return
    widths = strategy.ask(space, budget, 3, rng)
    assert budget.fits(space.cost("macs"), widths).all()
    assert proxy_errors(tables, widths)[0] == least


@pytest.mark.parametrize("metric", ["macs", "params", "latency"])
def test_descent_comes_to_the_brute_force_optimum(metric, monkeypatch):
    """Without enumeration: the optimum in most of 30 spaces, never far from it."""
    monkeypatch.setattr(lagrangian_module, "_ENUMERATED", 0)
    gaps = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        full = rng.integers(6, 17, 4)
        space = make_space(
            full,
            [(i, j, float(rng.integers(0, 20))) for i in range(4) for j in range(i + 1, 4)],
            rng.integers(1, 50, 4),
            extra={"latency": StaircaseLatency(full)},
        )
        tables = falling_tables(space, rng)
        budget = Budget(metric, float(rng.uniform(0.4, 0.8)), 0.03)
        least = least_error(space, budget, tables, 0.1)
        if np.isinf(least):
            continue
        widths = LagrangianSearch(tables).ask(space, budget, 1, rng)
        assert budget.fits(space.cost(metric), widths).all()
        gaps.append(proxy_errors(tables, widths)[0] / least - 1.0)
    assert len(gaps) >= 12
    assert np.mean(np.array(gaps) < 1e-9) >= 0.9
    assert max(gaps) < 0.05


def test_resnet50_optimum_beats_many_draws_and_its_pool_is_diverse():
    space, budget = resnet50(), Budget("macs", 0.5)
    tables = falling_tables(space, np.random.default_rng(0))
    drawn = ProxySearch(tables, draws=20_000).ask(space, budget, 1, np.random.default_rng(0))
    strategy = LagrangianSearch(tables, min_keep=0.1, round_to=8)
    widths = strategy.ask(space, budget, 12, np.random.default_rng(0))
    assert budget.fits(space.cost("macs"), widths).all()
    assert ((widths % 8 == 0) & (widths >= 0.1 * space.widths)).all()
    errors = proxy_errors(tables, widths)
    assert errors.argmin() == 0
    assert errors.max() < proxy_errors(tables, drawn)[0]
    assert len(np.unique(widths, axis=0)) == 12
    other = strategy.ask(space, budget, 1, np.random.default_rng(1))
    assert proxy_errors(tables, other)[0] == pytest.approx(errors[0], rel=0.01)


def test_errors_that_grow_with_the_width_are_met_from_below():
    """A table that would rather cut everything: the budget's lower end holds it up."""
    space, budget = chain(16, 16, 16, 16, 16), Budget("macs", 0.5, 0.01)
    tables = [np.arange(17.0) for _ in range(5)]
    widths = LagrangianSearch(tables).ask(space, budget, 4, np.random.default_rng(0))
    assert budget.fits(space.cost("macs"), widths).all()


def test_tables_are_checked():
    space, budget, rng = chain(4, 5), Budget("macs", 0.5, 0.1), np.random.default_rng(0)
    good = [np.zeros(5), np.zeros(6)]
    for tables, text in (
        (good[:1], "one table per group, 2. Got 1"),
        ([np.zeros(4), np.zeros(6)], r"group 'g0' must have shape \(5,\)"),
        ([np.zeros(5), np.full(6, np.nan)], "group 'g1' must be finite from 1 kept channel on"),
    ):
        for strategy in (ProxySearch(tables, draws=10), LagrangianSearch(tables)):
            with pytest.raises(InvalidInputError, match=text):
                strategy.ask(space, budget, 1, rng)
    with pytest.raises(InvalidInputError, match="'spread' parameter"):
        LagrangianSearch(good, spread=-1.0)
    with pytest.raises(InvalidInputError, match="'draws' parameter"):
        ProxySearch(good, draws=0)


def test_repr_counts_the_tables():
    tables = [np.zeros(5), np.zeros(6)]
    assert repr(ProxySearch(tables, draws=7, base=RandomSearch())) == (
        "ProxySearch(<2 tables>, draws=7, base=RandomSearch(min_keep=0.1, round_to=1, "
        "law='auto', max_draws=1000000))"
    )
    assert repr(LagrangianSearch(tables, round_to=4)) == (
        "LagrangianSearch(<2 tables>, spread=0.5, min_keep=0.1, round_to=4)"
    )
    assert isinstance(ProxySearch(tables), Strategy)
    assert isinstance(LagrangianSearch(tables), Strategy)
