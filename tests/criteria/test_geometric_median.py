"""FPGM against loops over pairs of filters."""

from __future__ import annotations

import pytest
import torch
from criteria_networks import Chain, Residual, group_of, traced

import randprune as rp


def distances(weight, places):
    """sum_j' ||F_j - F_j'|| with F_j all filters at the places of channel j."""
    rows = [torch.cat([weight[p].flatten() for p in channel]) for channel in places.tolist()]
    return [sum(float((a - b).double().norm()) for b in rows) for a in rows]


def test_sums_of_distances_of_a_layer():
    model, space = traced(Chain)
    scores = rp.score(model, space, "geometric_median")
    for name in ("one.weight", "two.weight"):
        number, slot = group_of(space, name, 0)
        wanted = distances(model.get_parameter(name).detach(), slot.index)
        assert scores[number].tolist() == pytest.approx(wanted, rel=1e-6)


def test_coupled_layers_add_up_and_tied_filters_are_one():
    model, space = traced(Residual)
    scores = rp.score(model, space, "geometric_median")
    number, one = group_of(space, "one.weight", 0)
    _, two = group_of(space, "two.weight", 0)
    assert one.index.shape == (3, 2)
    wanted = [
        a + b
        for a, b in zip(
            distances(model.one.weight.detach(), one.index),
            distances(model.two.weight.detach(), two.index),
            strict=True,
        )
    ]
    assert scores[number].tolist() == pytest.approx(wanted, rel=1e-6)


def test_the_filter_in_the_middle_goes_first_whatever_its_norm():
    model, space = traced(Chain)
    number, _ = group_of(space, "one.weight", 0)
    with torch.no_grad():
        model.one.weight[3] = 5.0 + model.one.weight[[0, 1, 2, 4]].mean(dim=0)
        model.one.weight[[0, 1, 2, 4]] += 5.0
    assert int(rp.score(model, space, "geometric_median")[number].argmin()) == 3
    assert int(rp.score(model, space, "l1")[number].argmin()) != 3


def test_equal_filters_are_no_distance_apart():
    model, space = traced(Chain)
    with torch.no_grad():
        model.one.weight.fill_(0.37)
    number, _ = group_of(space, "one.weight", 0)
    assert float(rp.score(model, space, "geometric_median")[number].max()) < 1e-5
