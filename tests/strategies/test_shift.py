from __future__ import annotations

import numpy as np
import pytest
from quadratic_spaces import StaircaseLatency, chain, make_space, resnet50

from randprune.cost import Budget
from randprune.strategies.feasible import WidthGrid
from randprune.strategies.shift import (
    Start,
    Target,
    moved_widths,
    neighbour_costs,
    odds,
    onto_budget,
    step_onto_budget,
    typical_start,
    width_odds,
)


def problem(space, ratio, tolerance=0.005, min_keep=0.1, round_to=1, metric="macs"):
    grid = WidthGrid.of(space, min_keep, round_to)
    return grid, Target.of(space.cost(metric), Budget(metric, ratio, tolerance), grid)


def test_one_half_changes_nothing_and_the_ends_are_least_and_dense():
    space = chain(64, 128, 20)
    grid, _ = problem(space, 0.5)
    uniform = np.random.default_rng(0).random((50, 3))
    same = moved_widths(odds(uniform), np.full(50, 0.5), grid)
    assert np.allclose(same, (0.1 + 0.9 * uniform) * space.widths)
    for theta, end in ((1e-12, grid.low), (1 - 1e-12, grid.full)):
        assert (grid.snap(moved_widths(odds(uniform), np.full(50, theta), grid)) == end).all()


def test_cutting_mirrors_keeping():
    grid, _ = problem(chain(1000), 0.5, min_keep=0.0)
    uniform = np.random.default_rng(0).random((50, 1))
    up = moved_widths(odds(uniform), np.full(50, 0.8), grid)
    down = moved_widths(odds(1.0 - uniform), np.full(50, 0.2), grid)
    assert np.allclose(up, 1000 - down)


def test_rows_do_not_influence_each_other():
    grid, target = problem(resnet50(), 0.5)
    draws = odds(np.random.default_rng(0).random((64, 37)))
    start = typical_start(draws, grid, target)
    together, ratios = onto_budget(draws, grid, target, start)
    assert target.fits(ratios).all()
    assert np.array_equal(ratios, target.ratios(together))
    for i in (0, 31, 63):
        alone, _ = onto_budget(draws[i : i + 1], grid, target, start)
        assert np.array_equal(alone[0], together[i])


@pytest.mark.parametrize("ratio", [0.03, 0.2, 0.8, 0.99])
def test_a_bad_start_still_arrives(ratio):
    grid, target = problem(resnet50(), ratio)
    draws = odds(np.random.default_rng(0).random((64, 37)))
    for start in (Start(), Start(0.999), Start(0.001, 50.0)):
        assert target.fits(onto_budget(draws, grid, target, start)[1]).all()


def test_coarse_widths_are_stepped_onto_the_budget():
    # One step of 32 channels in a wide group is many times this tolerance.
    grid, target = problem(resnet50(), 0.5, tolerance=0.0005, round_to=32)
    draws = odds(np.random.default_rng(0).random((200, 37)))
    widths, ratios = onto_budget(draws, grid, target, typical_start(draws, grid, target))
    assert target.fits(ratios).mean() > 0.9
    assert np.array_equal(ratios, target.ratios(widths))
    assert ((widths % 32 == 0) & (widths >= grid.low) & (widths <= grid.full)).all()


def test_steps_prefer_the_remainder_of_rounding():
    grid, target = problem(make_space([10] * 4, linear=[1.0] * 4), 0.525, tolerance=0.001)
    wanted = np.array([[5.1, 5.4, 5.2, 5.3]])
    widths, _ = step_onto_budget(grid.snap(wanted), wanted, grid, target)
    assert widths.tolist() == [[5, 6, 5, 5]]


def test_existing_widths_keep_their_place_and_can_be_moved():
    space = chain(64, 128, 256)
    grid, target = problem(space, 0.5)
    widths = np.array([[64, 60, 26], [20, 13, 256], [40, 100, 180]])
    again = grid.snap(moved_widths(width_odds(widths, grid), np.full(3, 0.5), grid))
    assert np.abs(again - widths).max() <= 1
    moved, ratios = onto_budget(width_odds(widths, grid), grid, target, Start())
    assert target.fits(ratios).all()
    assert (np.argsort(moved / space.widths) == np.argsort(widths / space.widths)).all()


def test_neighbour_costs_of_any_cost_are_those_of_the_neighbours():
    full = np.array([40, 64, 17])
    latency = StaircaseLatency(full)
    rng = np.random.default_rng(0)
    widths = rng.integers(5, 17, (6, 3)).astype(np.float64)
    steps = rng.integers(-4, 5, (6, 3)).astype(np.float64)
    for cost in (latency, chain(*full).cost("macs")):
        costs = neighbour_costs(cost, widths, steps)
        for n in range(6):
            for g in range(3):
                after = widths[n].copy()
                after[g] += steps[n, g]
                assert costs[n, g] == cost(after)
