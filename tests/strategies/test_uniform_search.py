from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from quadratic_spaces import chain, make_space, resnet50, spaces

from randprune.cost import Budget
from randprune.errors import InfeasibleBudgetError
from randprune.strategies import Strategy, UniformSearch
from randprune.strategies.feasible import WidthGrid, as_widths

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 1.0])
def test_same_ratio_everywhere_and_close_to_the_budget(ratio):
    space = resnet50()
    widths = UniformSearch().ask(space, Budget("macs", ratio), 1, RNG)
    # Some single ratio rounds to every one of these widths.
    assert ((widths[0] - 0.5) / space.widths).max() <= ((widths[0] + 0.5) / space.widths).min()
    assert abs(space.cost("macs")(widths[0]) / space.cost("macs").dense - ratio) < 0.002


def test_round_to():
    space, budget = resnet50(), Budget("macs", 0.5, 0.01)
    widths = UniformSearch(round_to=16).ask(space, budget, 1, RNG)
    assert (widths % 16 == 0).all()
    assert budget.fits(space.cost("macs"), widths).all()


def test_rows_repeat():
    widths = UniformSearch().ask(resnet50(), Budget("params", 0.5), 3, RNG)
    assert widths.shape == (3, 37)
    assert widths.dtype == np.int64
    assert (widths == widths[0]).all()


def test_single_groups_step_where_rounding_jumps_over_the_tolerance():
    # All ten groups round at the same ratio: uniform widths cost 1/2 or 1 of the dense network.
    space = make_space([2] * 10, linear=[1.0] * 10)
    widths = UniformSearch().ask(space, Budget("macs", 0.7, 0.001), 1, RNG)[0]
    assert sorted(widths) == [1] * 6 + [2] * 4


def test_too_narrow():
    space = make_space([2, 3], [(0, 1, 1.0)])
    with pytest.raises(
        InfeasibleBudgetError,
        match=r"MACs 0\.60±0\.01 was asked for, uniform widths come as near as .* Raise the tol",
    ):
        UniformSearch().ask(space, Budget("macs", 0.6, 0.01), 1, RNG)


def test_out_of_reach():
    with pytest.raises(InfeasibleBudgetError, match=r"Lower min_keep \(now 0\.9\)"):
        UniformSearch(min_keep=0.9).ask(chain(64, 64), Budget("macs", 0.5), 1, RNG)


@given(spaces(), st.floats(0.02, 1.0), st.sampled_from([1, 4]))
@settings(max_examples=100, deadline=None)
def test_feasible_or_a_reason(space, ratio, round_to):
    budget = Budget("macs", ratio, 0.05)
    try:
        widths = UniformSearch(round_to=round_to).ask(space, budget, 1, RNG)
    except InfeasibleBudgetError:
        # Only where no common ratio meets the budget.
        grid = WidthGrid.of(space, 0.0, round_to)
        every = as_widths(grid.snap(np.linspace(0.0, 1.0, 2001)[:, None] * grid.full))
        assert not budget.fits(space.cost("macs"), every).any()
        return
    assert budget.fits(space.cost("macs"), widths).all()
    space.check_widths(widths[0])
    assert ((widths % round_to == 0) | (widths == space.widths)).all()


def test_repr_rebuilds():
    strategy = UniformSearch(min_keep=0.25, round_to=8)
    assert eval(repr(strategy)) == strategy
    assert isinstance(strategy, Strategy)
