"""Measured tables: a masked dense network stands in for the cut and repaired one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from repairable import NETWORKS, Chain, build, images, traced
from torch import nn

import randprune as rp
from randprune.errors import DataError
from randprune.recovery.collect import collect_moments
from randprune.recovery.elimination import eliminate
from randprune.recovery.inverses import Inverses
from randprune.recovery.least_squares import repair
from randprune.recovery.replay import detached_tensors
from randprune.recovery.sensitivity import measured_tables, table
from randprune.space import Selection


@pytest.mark.parametrize("make", NETWORKS)
def test_they_are_what_cutting_and_repairing_each_group_shows(
    make: Callable[[], nn.Module],
) -> None:
    network = build(make)
    space = traced(network)
    moments = collect_moments(network, space, [images(60)])
    found = eliminate(space, Inverses(moments), detached_tensors(network))
    unseen = images(40, seed=1)
    tables = measured_tables(network, space, Inverses(moments), found, unseen, keeps=(0.5,))
    with torch.no_grad():
        dense = network(unseen)
        spread = (dense - dense.mean(0)).square().sum()
        for number, group in enumerate(space.groups):
            width = round(0.5 * group.width)
            kept = list(space.dense.kept)
            kept[number] = found[number].kept(width)
            selection = Selection(tuple(kept), space.fingerprint)
            small = rp.cut(network, space, selection)
            repair(small, network, space, selection, Inverses(moments))
            change = float((small(unseen) - dense).square().sum() / spread)
            assert tables[number][width] == pytest.approx(change, rel=0.02, abs=1e-8)


class WideHead(nn.Module):
    """A linear layer that reads more columns than there are images, of which few say anything."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 48, 3)
        self.head = nn.Linear(48, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).mean(dim=(2, 3)))


def test_a_layer_with_more_columns_than_images_is_not_free_to_cut() -> None:
    network = build(WideHead)
    space = traced(network)
    x = images(150)
    moments = collect_moments(network, space, [x[:16]])
    found = eliminate(space, Inverses(moments), detached_tensors(network))
    (measured,) = measured_tables(network, space, Inverses(moments), found, x[16:])
    width = 22  # measured: 45 %
    assert found[0].errors[width] < 1e-3
    assert measured[width] > 30 * found[0].errors[width]


def test_tables_pass_through_the_measured_errors_and_follow_a_power_law_exactly() -> None:
    law = 0.01 * np.arange(20, -1, -1.0) ** 2
    measured = {width: float(law[width]) for width in (18, 14, 9, 4)}
    np.testing.assert_allclose(table(20, measured), law, rtol=1e-9)
    bent = table(20, {18: 0.5, 9: 0.25, 4: 3.0})  # noise: fewer channels are never better
    assert (np.diff(bent) <= 1e-12).all()
    assert bent[[18, 9, 4, 20]] == pytest.approx([0.5, 0.5, 3.0, 0.0])


def test_one_measured_width_and_none_are_enough() -> None:
    np.testing.assert_allclose(table(2, {1: 0.5}), [1.0, 0.5, 0.0])

    class Thin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 1, 3), nn.Conv2d(1, 4, 3)
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.second(torch.relu(self.first(x))).mean(dim=(2, 3)))

    network = build(Thin)
    space = traced(network)
    moments = collect_moments(network, space, [images(20)])
    found = eliminate(space, Inverses(moments), detached_tensors(network))
    tables = measured_tables(network, space, Inverses(moments), found, images(20))
    assert [len(entry) for entry in tables] == [group.width + 1 for group in space.groups]
    assert all(np.isfinite(entry[1:]).all() and entry[-1] == 0.0 for entry in tables)


def test_outputs_that_do_not_vary_are_refused() -> None:
    network = build(Chain)
    space = traced(network)
    moments = collect_moments(network, space, [images(8)])
    found = eliminate(space, Inverses(moments), detached_tensors(network))
    with pytest.raises(DataError, match="do not vary"):
        measured_tables(network, space, Inverses(moments), found, torch.zeros(4, 3, 8, 8))
