"""Network slimming's |gamma|, where there is one."""

from __future__ import annotations

import pytest
import torch
from criteria_networks import Chain, Residual, group_of, traced
from torch import nn

import randprune as rp


def test_size_of_gamma_whatever_its_sign():
    model, space = traced(Chain)
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([0.5, -2.0, 0.0, 1.0, -0.25]))
    number, _ = group_of(space, "one.weight", 0)
    assert rp.score(model, space, "bn_scale")[number].tolist() == [0.5, 2.0, 0.0, 1.0, 0.25]


def test_all_norms_of_a_coupled_stage_add_up():
    model, space = traced(Residual)
    number, slot = group_of(space, "one.weight", 0)
    gammas = (model.norm_one.weight.abs() + model.norm_two.weight.abs()).detach()
    wanted = [float(sum(gammas[p] for p in places)) for places in slot.index.tolist()]
    assert rp.score(model, space, "bn_scale")[number].tolist() == pytest.approx(wanted)


def test_groups_without_batch_norm_fall_back_to_the_l2_norm():
    model, space = traced(Chain)
    number, _ = group_of(space, "two.weight", 0)
    norms = model.two.weight.detach().flatten(1).norm(dim=1)
    assert torch.allclose(rp.score(model, space, "bn_scale")[number], norms)


def test_norms_further_on_count_too():
    """Dense connections: a channel is normalised by every layer that reads it."""

    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 4, 3, padding=1)
            self.norm_a = nn.BatchNorm2d(4)
            self.two = nn.Conv2d(4, 3, 1)
            self.norm_b = nn.BatchNorm2d(7)
            self.head = nn.Conv2d(7, 5, 6)

        def forward(self, x):
            one = self.one(x)
            two = self.two(torch.relu(self.norm_a(one)))
            return self.head(torch.relu(self.norm_b(torch.cat([two, one], dim=1)))).flatten(1)

    model, space = traced(Dense)
    number, _ = group_of(space, "one.weight", 0)
    wanted = (model.norm_a.weight + model.norm_b.weight[3:]).detach()
    assert torch.allclose(rp.score(model, space, "bn_scale")[number], wanted)
