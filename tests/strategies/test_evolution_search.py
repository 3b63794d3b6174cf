from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from quadratic_spaces import chain, resnet50, spaces

from randprune.cost import Budget
from randprune.errors import InfeasibleBudgetError, InvalidInputError
from randprune.strategies import AdaptiveStrategy, EvolutionSearch, RandomSearch, Strategy


def objective(space):
    """Peaks where the keep ratios rise evenly from the first group to the last."""
    ideal = np.linspace(0.3, 1.0, len(space))
    return lambda widths: -(((widths / space.widths) - ideal) ** 2).sum(axis=1)


def evolve(strategy, space, budget, value, generations, rng, n=20):
    told = []
    for _ in range(generations):
        widths = strategy.ask(space, budget, n, rng)
        assert budget.fits(space.cost(budget.metric), widths).all()
        strategy.tell(widths, value(widths))
        told.append(widths)
    return np.concatenate(told)


@pytest.mark.parametrize("seed", range(3))
def test_beats_as_many_random_configurations(seed):
    space, budget = resnet50(), Budget("macs", 0.5)
    value = objective(space)
    rng = np.random.default_rng(seed)
    told = evolve(EvolutionSearch(), space, budget, value, 40, rng)
    random = RandomSearch(law="shifted").ask(space, budget, len(told), rng)
    assert value(told[:32]).max() < value(told).max()
    # Closer to the peak by at least a third than the best of equally many random ones.
    assert value(told).max() > value(random).max() * 2 / 3


def test_does_not_repeat_itself():
    space, budget = resnet50(), Budget("macs", 0.5)
    strategy = EvolutionSearch(population=10)
    told = evolve(strategy, space, budget, objective(space), 10, np.random.default_rng(0))
    assert len(np.unique(told, axis=0)) == len(told)


def test_same_seed_and_same_values_give_the_same_search():
    space, budget = chain(64, 64, 64), Budget("macs", 0.5)
    runs = [
        evolve(EvolutionSearch(), space, budget, objective(space), 5, np.random.default_rng(4))
        for _ in range(2)
    ]
    assert np.array_equal(*runs)


def test_random_without_values_and_in_tiny_spaces():
    # Two feasible configurations: asking for more repeats them instead of failing.
    space, budget = chain(2, 2), Budget("macs", 0.55, 0.05)
    strategy = EvolutionSearch(population=4, min_keep=0.0)
    for _ in range(3):
        widths = strategy.ask(space, budget, 5, np.random.default_rng(0))
        assert budget.fits(space.cost("macs"), widths).all()
        strategy.tell(widths, np.ones(5))


@given(spaces(), st.floats(0.1, 1.0), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_children_are_feasible(space, ratio, seed):
    budget, rng = Budget("macs", ratio, 0.05), np.random.default_rng(seed)
    strategy = EvolutionSearch(population=4, min_keep=0.2, round_to=2)
    try:
        widths = evolve(strategy, space, budget, objective(space), 3, rng, n=4)
    except InfeasibleBudgetError:
        # Only where random draws find nothing either.
        with pytest.raises(InfeasibleBudgetError, match="asked"):
            RandomSearch(0.2, 2).ask(space, budget, 4, np.random.default_rng(seed))
        return
    full = space.widths
    assert (widths >= np.maximum(1, 0.2 * full)).all()
    assert ((widths % 2 == 0) | (widths == full)).all()


def test_wrong_values_are_refused():
    strategy = EvolutionSearch()
    with pytest.raises(InvalidInputError, match=r"Got \(2, 3\) and \(3,\) instead"):
        strategy.tell(np.ones((2, 3), dtype=np.int64), np.ones(3))
    with pytest.raises(InvalidInputError, match="must be finite: leave failed candidates out"):
        strategy.tell(np.ones((1, 3), dtype=np.int64), [np.nan])
    strategy.tell(np.ones((1, 3), dtype=np.int64), [1.0])
    with pytest.raises(InvalidInputError, match=r"space of 3 groups\. Got one of 2"):
        strategy.ask(chain(8, 8), Budget("macs", 0.5), 1, np.random.default_rng(0))


def test_arguments_are_checked():
    with pytest.raises(InvalidInputError, match="'population' parameter of EvolutionSearch"):
        EvolutionSearch(population=0)
    with pytest.raises(InvalidInputError, match=r"'mutation' parameter .* probability"):
        EvolutionSearch(mutation=1.2)


def test_repr_rebuilds():
    strategy = EvolutionSearch(population=5, mutation=0.2, round_to=8)
    assert repr(eval(repr(strategy))) == repr(strategy)
    assert isinstance(strategy, Strategy)
    assert isinstance(strategy, AdaptiveStrategy)
    assert not isinstance(RandomSearch(), AdaptiveStrategy)
