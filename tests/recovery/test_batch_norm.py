"""Batch-norm statistics: measured as torch measures them, computed as they would be measured."""

from __future__ import annotations

import pytest
import torch
from repairable import Bare, Chain, build, images, random_selection, traced
from torch import nn

import randprune as rp
from randprune.errors import DataError
from randprune.recovery.batch_norm import closed_form, recalibrate
from randprune.recovery.collect import collect_moments
from randprune.recovery.inverses import Inverses
from randprune.recovery.least_squares import repair


def test_measured_statistics_are_the_mean_over_batches() -> None:
    network = build(Chain)
    x = images(30)
    count = network.a_norm.num_batches_tracked.clone()
    network.b_norm.train()
    assert recalibrate(network, [(part, None) for part in x.split(10)]) is network
    with torch.no_grad():
        parts = [network.a(part) for part in x.split(10)]
    mean = torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0)
    variance = torch.stack([part.transpose(0, 1).flatten(1).var(1) for part in parts]).mean(0)
    torch.testing.assert_close(network.a_norm.running_mean, mean)
    torch.testing.assert_close(network.a_norm.running_var, variance)
    # All else is as before.
    assert torch.equal(network.a_norm.num_batches_tracked, count)
    assert network.a_norm.momentum == 0.1
    assert not network.a_norm.training
    assert network.b_norm.training


def test_other_layers_are_in_evaluation_mode_while_measuring() -> None:
    network = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3)).train()
    x = images(4)
    recalibrate(network, [x])
    torch.testing.assert_close(network[1].running_mean, x.mean((0, 2, 3)))
    assert network[0].training


def test_closed_form_is_what_data_would_show() -> None:
    """The first cut layer reads the dense network's values: moments and data agree."""
    network = build(Chain)
    space = traced(network)
    selection = random_selection(space)
    x = images(60)
    moments = collect_moments(network, space, [x], positions=10_000)
    for ridge in (None, 1e-4):
        small = rp.cut(network, space, selection)
        if ridge is not None:
            repair(small, network, space, selection, Inverses(moments, ridge))
        a_before = small.a_norm.running_mean.clone()
        assert closed_form(small, space, selection, moments) is small
        assert torch.equal(small.a_norm.running_mean, a_before)
        with torch.no_grad():
            b = small.b(torch.relu(small.a_norm(small.a(x))))
        torch.testing.assert_close(
            small.b_norm.running_mean, b.mean((0, 2, 3)), rtol=1e-3, atol=1e-4
        )
        variance = b.transpose(0, 1).flatten(1).var(1, correction=0)
        torch.testing.assert_close(small.b_norm.running_var, variance, rtol=1e-3, atol=1e-4)


def test_networks_without_norms_do_not_touch_the_data() -> None:
    def no_data() -> object:
        raise AssertionError("the data was opened")
        yield

    network = build(Bare)
    assert recalibrate(network, no_data()) is network


def test_no_data_leaves_the_network_alone() -> None:
    network = build(Chain)
    before = network.a_norm.running_mean.clone()
    with pytest.raises(DataError, match="empty"):
        recalibrate(network, [])
    assert torch.equal(network.a_norm.running_mean, before)


def test_statistics_that_are_not_finite_are_refused() -> None:
    broken = images(4)
    broken[0] = float("inf")
    with pytest.raises(DataError, match="not finite"):
        recalibrate(build(Chain), [broken])


def test_an_interrupted_measurement_restores_momentum_and_modes() -> None:
    network = build(Chain)

    def interrupted() -> object:
        yield images(4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recalibrate(network, interrupted())
    assert network.a_norm.momentum == 0.1
    assert not network.a_norm.training
