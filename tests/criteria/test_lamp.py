"""LAMP against its definition, written as loops."""

from __future__ import annotations

import pytest
import torch
from criteria_networks import Chain, Residual, group_of, traced

import randprune as rp


def shares(squares):
    return [m / sum(other for other in squares if other >= m) for m in squares]


@pytest.mark.parametrize("make", [Chain, Residual])
def test_share_among_those_at_least_as_large(make):
    model, space = traced(make)
    scores = rp.score(model, space, "lamp")
    for group, found in zip(space.groups, scores, strict=True):
        squares = []
        for channel in range(group.width):
            total = 0.0
            for slot in group.with_role("out"):
                weight = model.get_parameter(slot.tensor).detach().double()
                for place in slot.index[channel].tolist():
                    total += float(weight[place].square().sum())
            squares.append(total)
        assert found.tolist() == pytest.approx(shares(squares), rel=1e-9)
        assert float(found.max()) == 1.0


def test_order_within_a_group_is_that_of_l2():
    model, space = traced(Chain)
    for lamp, l2 in zip(rp.score(model, space, "lamp"), rp.score(model, space, "l2"), strict=True):
        assert lamp.argsort().tolist() == l2.argsort().tolist()


def test_ties_score_alike_and_dead_channels_zero():
    model, space = traced(Chain)
    number, _ = group_of(space, "one.weight", 0)
    with torch.no_grad():
        model.one.weight.zero_()
        model.one.weight[1, 0, 0, 0] = 2.0
        model.one.weight[2, 1, 2, 2] = -2.0
        model.one.weight[4, 0, 0, 0] = 1.0
    found = rp.score(model, space, "lamp")[number]
    assert found.tolist() == pytest.approx([0.0, 0.5, 0.5, 0.0, 1.0 / 9.0])
