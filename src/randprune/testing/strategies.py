"""What every search strategy must do, checked on two small spaces in about a second."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np

from randprune.cost import Budget, QuadraticCost
from randprune.errors import InfeasibleBudgetError, InvalidInputError
from randprune.space import ChannelGroup, IntArray, Space
from randprune.strategies.base import AdaptiveStrategy, Strategy

_BUDGETS = (Budget("macs", 0.5, 0.02), Budget("macs", 0.25, 0.02), Budget("params", 0.6, 0.02))
_COUNT = 7


def check_strategy(make: Callable[[Space], Strategy]) -> None:
    """Check a strategy against its contract (`randprune.strategies.base.Strategy`).

        check_strategy(lambda space: MyStrategy())

    Args:
        make: a new strategy for a space; what takes no tables ignores the space.

    Raises:
        AssertionError: says which rule is broken, and how.
    """
    for space in (chain_space((16, 32, 24, 48)), chain_space((64,) * 6)):
        strategy = make(space)
        assert isinstance(strategy, Strategy), f"{strategy!r} has no method ask: it is no Strategy."
        for budget in _BUDGETS:
            check_rows(make, space, budget)
            check_repeats(make, space, budget)
            check_out_of_reach(make, space, budget)
        check_refusals(make(space), space)
        if isinstance(strategy, AdaptiveStrategy):
            check_learning(make, space)


def chain_space(widths: tuple[int, ...]) -> Space:
    """Groups of a plain network: each layer costs the product of its neighbours' widths."""
    full = np.array(widths, dtype=np.int64)
    quadratic = np.zeros((full.size, full.size))
    for left in range(full.size - 1):
        quadratic[left, left + 1] = quadratic[left + 1, left] = 4.5
    ends = np.zeros(full.size)
    ends[0], ends[-1] = 27.0, 10.0
    macs = QuadraticCost("macs", "MACs", 64 * quadratic, 64 * ends, 0.0, full)
    params = QuadraticCost("params", "parameters", quadratic, ends + 2.0, 10.0, full)
    groups = tuple(ChannelGroup(f"layer{i}", int(width), ()) for i, width in enumerate(widths))
    return Space(groups, (), {"macs": macs, "params": params})


def check_rows(make: Callable[[Space], Strategy], space: Space, budget: Budget) -> None:
    """int64 (n, G), every width allowed, every row within the budget, however many are asked."""
    strategy = make(space)
    for count in (1, _COUNT):
        widths = strategy.ask(space, budget, count, np.random.default_rng(0))
        where = f"{strategy!r} asked for {count}"
        assert isinstance(widths, np.ndarray), f"{where} gave {type(widths).__name__}."
        assert widths.dtype == np.int64, f"{where} gave {widths.dtype}, not int64."
        assert widths.shape == (count, len(space)), f"{where} gave shape {widths.shape}."
        within = (widths >= 1) & (widths <= space.widths)
        assert within.all(), f"{where} gave widths outside 1..{space.widths.tolist()}."
        cost = space.cost(budget.metric)
        ratios = cost(widths) / cost.dense
        assert (np.abs(ratios - budget.ratio) <= budget.tolerance + 1e-9).all(), (
            f"{where} under {budget} gave ratios {ratios.tolist()}."
        )


def check_repeats(make: Callable[[Space], Strategy], space: Space, budget: Budget) -> None:
    """The same generator state, the same rows; numpy's global generator is left alone."""
    before = _global_state()
    first = _ask(make(space), space, budget, 3)
    again = _ask(make(space), space, budget, 3)
    strategy = make(space)
    assert np.array_equal(first, again), f"{strategy!r} gave other rows for the same generator."
    assert _global_state() == before, (
        f"{strategy!r} drew from numpy's global generator instead of the one it was given."
    )


def check_out_of_reach(make: Callable[[Space], Strategy], space: Space, budget: Budget) -> None:
    """A budget below every configuration is refused as infeasible."""
    strategy = make(space)
    beyond = Budget(budget.metric, 1e-6, 1e-7)
    try:
        strategy.ask(space, beyond, 1, np.random.default_rng(0))
    except InfeasibleBudgetError:
        return
    raise AssertionError(f"{strategy!r} did not raise InfeasibleBudgetError for {beyond}.")


def check_refusals(strategy: Strategy, space: Space) -> None:
    """No rows, or no generator, is a mistake that is named."""
    for count, rng in ((0, np.random.default_rng(0)), (1, None)):
        try:
            strategy.ask(space, _BUDGETS[0], count, rng)  # type: ignore[arg-type]
        except InvalidInputError:
            continue
        raise AssertionError(
            f"{strategy!r} accepted n={count}, rng={rng!r}. Begin `ask` with "
            "randprune.strategies.base.check_request(n, rng)."
        )


def check_learning(make: Callable[[Space], Strategy], space: Space) -> None:
    """`tell` takes any part of what was asked for, and a copy learns alone."""
    strategy = make(space)
    assert isinstance(strategy, AdaptiveStrategy)
    rng = np.random.default_rng(0)
    for _ in range(3):
        widths = strategy.ask(space, _BUDGETS[0], _COUNT, rng)
        told = widths[::2]
        before = copy.deepcopy(strategy)
        strategy.tell(told, -(told.astype(np.float64) ** 2).sum(axis=1))
        assert isinstance(before, AdaptiveStrategy), "A copy of the strategy cannot be told."
    rows = strategy.ask(space, _BUDGETS[0], 1, rng)
    assert rows.shape == (1, len(space)), f"After tell, {strategy!r} gave shape {rows.shape}."


def _ask(strategy: Strategy, space: Space, budget: Budget, seed: int) -> IntArray:
    return strategy.ask(space, budget, _COUNT, np.random.default_rng(seed))


def _global_state() -> str:
    """numpy's global generator, which nobody may draw from."""
    return repr(np.random.get_state())  # noqa: NPY002
