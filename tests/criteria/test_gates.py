"""Gates trained with frozen weights: what they multiply, what they aim at, what they cost."""

from __future__ import annotations

import copy

import pytest
import torch
from criteria_networks import Chain, Residual, group_of, images, traced

import randprune as rp
from randprune.criteria import passes_of
from randprune.criteria.gates import Gates, _ExpectedMacs, _gated
from randprune.errors import InvalidInputError


@pytest.mark.parametrize("kind", [Chain, Residual])
def test_a_shut_gate_is_a_cut_channel(kind):
    model, space = traced(kind)
    pictures, _ = images(6)
    scores = rp.score(model, space, "l1")
    selection = rp.select(space, scores, [max(1, g.width // 2) for g in space.groups])
    gates = []
    for group, kept in zip(space.groups, selection, strict=True):
        gate = torch.zeros(group.width)
        gate[torch.from_numpy(kept)] = 1.0
        gates.append(gate)
    gated = copy.deepcopy(model)
    replaced = _gated(space, dict(gated.named_parameters()), gates)
    with torch.no_grad():
        for name, weight in replaced.items():
            gated.get_parameter(name).copy_(weight)
        small = rp.cut(model, space, selection)
        assert torch.allclose(gated(pictures), small(pictures), atol=1e-5)
    widths = [len(kept) for kept in selection]
    cost = space.cost("macs")
    share = float(_ExpectedMacs(space, torch.device("cpu")).share(gates))
    assert share == pytest.approx(float(cost(widths)) / cost.dense, rel=1e-5)


def test_gates_reach_the_ratio_and_shut_what_says_nothing():
    model, space = traced(Chain)
    number, _ = group_of(space, "one.weight", 0)
    with torch.no_grad():
        model.two.weight[:, 1:3] = 0.0  # nobody reads channels 1 and 2
    found = rp.score(model, space, Gates(ratio=0.6, steps=150), images(32))
    share = float(_ExpectedMacs(space, torch.device("cpu")).share([f.float() for f in found]))
    assert 0.3 < share < 0.7
    assert set(found[number].argsort()[:2].tolist()) == {1, 2}


def test_all_passes_are_counted():
    criterion = Gates(steps=7, batch=16)
    assert (passes_of(criterion, 500).forward, passes_of(criterion, 500).backward) == (224, 112)
    assert passes_of(criterion, 10).forward == 140


def test_settings_that_say_nothing():
    with pytest.raises(InvalidInputError, match="'ratio' parameter of gates"):
        Gates(ratio=1.0)
    with pytest.raises(InvalidInputError, match="'steps' and 'batch'"):
        Gates(steps=0)
