"""Distillation: nearer to the dense outputs, on images that it was not fitted to, and honest."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from repairable import Chain, build, images, random_selection, traced
from torch import Tensor, nn

import randprune as rp
from randprune.errors import DataError, UnsupportedModelError
from randprune.recovery import Passes, passes, recover
from randprune.recovery.base import Distill
from randprune.recovery.distill import Schedule, distill

SHORT = Schedule(steps=60, batch=16, lr=3e-3)


def cut_chain() -> tuple[nn.Module, nn.Module, Any, Any]:
    network = build(Chain)
    space = traced(network)
    selection = random_selection(space)
    return network, rp.cut(network, space, selection), space, selection


def distance(a: nn.Module, b: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((a.eval()(x) - b.eval()(x)).square().mean())


def test_outputs_come_nearer_on_new_images() -> None:
    network, small, space, selection = cut_chain()
    x, new = images(200), images(60, seed=5)
    recover(small, network, space, selection, "least_squares", x)
    before = distance(small, network, new)
    dense = copy.deepcopy(network.state_dict())
    recover(small, network, space, selection, Distill(schedule=SHORT), x)
    assert distance(small, network, new) < 0.8 * before
    assert all(torch.equal(dense[name], tensor) for name, tensor in network.state_dict().items())


def test_weights_that_are_worse_on_held_out_images_are_not_kept() -> None:
    network, small, *_ = cut_chain()
    before = copy.deepcopy(small.state_dict())
    distill(small, network, (images(40),), Schedule(steps=5, batch=16, lr=1e6))
    after = small.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_modes_flags_and_global_randomness_stay() -> None:
    network, small, *_ = cut_chain()
    small.train()
    first = next(small.parameters())
    first.requires_grad_(False)
    state = torch.random.get_rng_state()
    distill(small, network, (images(40),), Schedule(steps=3, batch=16))
    assert small.training
    assert not first.requires_grad
    assert all(p.grad is None for p in small.parameters())
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_same_seed_gives_the_same_weights() -> None:
    network, small, *_ = cut_chain()
    twin = copy.deepcopy(small)
    for one in (small, twin):
        distill(one, network, (images(40),), Schedule(steps=4, batch=16))
    other = twin.state_dict()
    assert all(torch.equal(t, other[name]) for name, t in small.state_dict().items())


class Several(nn.Module):
    """Outputs in a dict, one of which is the same for all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = torch.relu(self.body(x))
        return {"map": self.head(y), "anchors": torch.ones(7, 2), "mean": y.mean((1, 2, 3))}


def test_outputs_of_any_kind() -> None:
    torch.manual_seed(0)
    network = Several().eval()
    small = copy.deepcopy(network)
    with torch.no_grad():
        small.head.weight.mul_(0.5)
    x = images(60)
    before = distance(nn.Sequential(small.body), nn.Sequential(network.body), x)
    gap = (small(x)["map"] - network(x)["map"]).square().mean()
    distill(small, network, (x,), SHORT)
    assert before == 0.0
    assert (small(x)["map"] - network(x)["map"]).square().mean() < 0.2 * gap


class Sealed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.a(x).mean((2, 3))


def test_what_cannot_be_distilled_says_so() -> None:
    network = Sealed()
    with pytest.raises(UnsupportedModelError, match="no gradient"):
        distill(copy.deepcopy(network), network, (images(20),), SHORT)
    with pytest.raises(DataError, match=r"at least 5 samples\. Got 3"):
        distill(copy.deepcopy(network), network, (images(3),), SHORT)
    constant = nn.Sequential(nn.Conv2d(3, 4, 3))
    nn.init.zeros_(constant[0].weight)
    with pytest.raises(DataError, match="do not vary"):
        distill(copy.deepcopy(constant), constant, (images(20),), SHORT)


def test_its_passes_are_counted() -> None:
    assert passes("least_squares", 500) == Passes()
    assert passes("least_squares+sequential", 500) == Passes(500)
    found = passes("distill", 500)
    assert found.backward == 300 * 64
    assert found.forward == 500 + 1100 + 300 * 64
    assert passes("least_squares+distill", 500).backward == 300 * 64
    assert passes("least_squares+sequential+bn", 500).backward == 0
