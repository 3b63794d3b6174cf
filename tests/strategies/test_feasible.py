from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from quadratic_spaces import chain, make_space

from randprune.errors import InvalidInputError
from randprune.strategies import reachable
from randprune.strategies.feasible import WidthGrid


def allowed(full: int, min_keep: float, round_to: int) -> list[int]:
    """The documented rule, one width at a time."""
    return [
        w
        for w in range(1, full + 1)
        if (w % round_to == 0 or w == full) and w >= min_keep * full - 1e-9
    ]


@given(st.integers(1, 100), st.sampled_from([0.0, 0.07, 0.1, 0.5, 0.99, 1.0]), st.integers(1, 40))
def test_levels_follow_the_rule(full, min_keep, round_to):
    grid = WidthGrid.of(make_space([full]), min_keep, round_to)
    assert grid.levels(0).tolist() == allowed(full, min_keep, round_to)


@given(st.integers(1, 60), st.sampled_from([0.0, 0.1, 0.5]), st.integers(1, 20))
def test_snap_gives_the_nearest_and_steps_the_next(full, min_keep, round_to):
    grid = WidthGrid.of(make_space([full]), min_keep, round_to)
    levels = grid.levels(0)
    wanted = np.linspace(0.0, full, 203)[:, None]
    snapped = grid.snap(wanted)[:, 0]
    assert set(snapped) <= set(levels)
    distance = np.abs(levels - wanted).min(axis=1)
    assert np.allclose(np.abs(snapped - wanted[:, 0]), distance)
    column = levels[:, None]
    assert grid.up(column)[:, 0].tolist() == [*levels[1:], levels[-1]]
    assert grid.down(column)[:, 0].tolist() == [levels[0], *levels[:-1]]


def test_min_keep_times_width_is_not_spoilt_by_floating_point():
    # 0.07 * 100 is 7.000000000000001 in floating point.
    assert WidthGrid.of(make_space([100]), 0.07, 1).low.tolist() == [7.0]


def test_reachable():
    space = chain(10, 20)
    dense = 27 * 10 + 9 * 10 * 20 + 10 * 20
    assert reachable(space, "macs") == ((27 + 9 + 10) / dense, 1.0)
    assert reachable(space, "macs", 0.5) == ((27 * 5 + 9 * 5 * 10 + 10 * 10) / dense, 1.0)
    assert reachable(space, "macs", 0.5, 8) == ((27 * 8 + 9 * 8 * 16 + 10 * 16) / dense, 1.0)
    with pytest.raises(InvalidInputError, match="'min_keep' parameter of reachable"):
        reachable(space, "macs", -0.5)
