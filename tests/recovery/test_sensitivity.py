"""Sensitivities: a masked dense network stands in for the cut and repaired one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from repairable import NETWORKS, Chain, build, images, traced
from torch import nn

import randprune as rp
from randprune.errors import DataError
from randprune.recovery.elimination import eliminate
from randprune.recovery.least_squares import repair
from randprune.recovery.replay import detached_tensors
from randprune.recovery.sensitivity import sensitivities, sensitivity_tables
from randprune.recovery.statistics import collect_moments
from randprune.space import Selection


@pytest.mark.parametrize("make", NETWORKS)
def test_they_are_what_cutting_and_repairing_each_group_shows(
    make: Callable[[], nn.Module],
) -> None:
    network = build(make)
    space = traced(network)
    x = images(60)
    moments = collect_moments(network, space, [x])
    found = eliminate(space, moments, detached_tensors(network))
    measured = sensitivities(network, space, moments, found, x, keep=0.5)
    with torch.no_grad():
        dense = network(x)
        spread = (dense - dense.mean(0)).square().sum()
        for number, group in enumerate(space.groups):
            width = round(0.5 * group.width)
            kept = list(space.dense.kept)
            kept[number] = found[number].kept(width)
            selection = Selection(tuple(kept), space.fingerprint)
            small = rp.cut(network, space, selection)
            repair(small, network, space, selection, moments)
            change = float((small(x) - dense).square().sum() / spread)
            expected = change / found[number].errors[width]
            assert measured[number] == pytest.approx(expected, rel=0.02)


def test_tables_scale_the_errors() -> None:
    network = build(Chain)
    space = traced(network)
    x = images(20)
    moments = collect_moments(network, space, [x])
    found = eliminate(space, moments, detached_tensors(network))
    measured = np.array([2.0, 3.0, 0.0])[: len(space)]
    tables = sensitivity_tables(found, measured, power=2.0)
    for table, elimination, value in zip(tables, found, measured, strict=True):
        np.testing.assert_allclose(table, elimination.errors * value**2)


def test_outputs_that_do_not_vary_are_refused() -> None:
    network = build(Chain)
    space = traced(network)
    moments = collect_moments(network, space, [images(8)])
    found = eliminate(space, moments, detached_tensors(network))
    with pytest.raises(DataError, match="do not vary"):
        sensitivities(network, space, moments, found, torch.zeros(4, 3, 8, 8))
