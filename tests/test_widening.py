"""Widened networks: the same graph with more channels, the original inside, costs exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import randprune as rp
from randprune.widening import wide_budget
from randprune.zoo.models import build_model


class Dense(nn.Module):
    """Concatenated features, a grouped and a depthwise convolution, a norm over groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a = nn.Conv2d(8, 6, 3, padding=1)
        self.b = nn.Conv2d(14, 6, 3, padding=1)
        self.deep = nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.norm = nn.GroupNorm(4, 16)
        self.mix = nn.Conv2d(20, 16, 1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 16)[:, None, None])
        self.head = nn.Linear(16 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = torch.cat([x, self.a(x).relu()], 1)
        x = torch.cat([x, self.b(x).relu()], 1)
        x = self.norm(self.mix(self.deep(x)))
        x = self.grouped(x).relu() * self.scale
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


NETWORKS = {
    "resnet20": lambda: build_model("randprune:resnet20"),
    "mobilenet_v2": lambda: build_model("randprune:mobilenet_v2"),
    "densenet": Dense,
    "shufflenet": lambda: build_model("torchvision:shufflenet_v2_x0_5"),
}


def first_channels(space: rp.Space) -> rp.Selection:
    return rp.Selection(tuple(np.arange(group.width) for group in space.groups))


@pytest.mark.parametrize("name", NETWORKS)
def test_wide_networks_hold_the_original_and_cost_what_the_space_says(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    images = torch.randn(1, 3, 32, 32)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    space = rp.trace(model, images)
    wide = rp.widen(model, space, 1.5)
    step = rp.widening_of(wide)
    grown = [g for g in space.groups if g.name not in step.stayed]
    assert len(grown) >= len(space) - 2
    for ours, theirs in zip(space.groups, step.wide.groups, strict=True):
        assert theirs.width == (ours.width * 3 + 1) // 2 or ours.name in step.stayed
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        wide(images)
    assert counter.get_total_flops() / 2 == step.wide.cost("macs").dense
    assert sum(p.numel() for p in wide.parameters()) == step.wide.cost("params").dense
    for cost in ("macs", "params", "activations"):
        assert step.wide.cost(cost)(space.widths) == space.cost(cost).dense
    back = rp.cut(wide, step.wide, first_channels(space))
    with torch.no_grad():
        assert torch.equal(back(images), model(images))
    assert {type(m) for m in wide.modules()} == {type(m) for m in model.modules()}
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_a_wide_network_cut_somewhere_wider_than_the_original_verifies_saves_and_loads(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model = Dense().eval()
    images = torch.randn(2, 3, 8, 8)
    space = rp.trace(model, images[:1])
    wide = rp.widen(model, space, 2.0)
    step = rp.widening_of(wide)
    rng = np.random.default_rng(0)
    scores = [torch.from_numpy(rng.random(g.width)) for g in step.wide.groups]
    widths = space.widths // 2
    widths[0] = space.widths[0] + 3
    selection = rp.select(step.wide, scores, widths)
    small = rp.cut(wide, step.wide, selection)
    assert rp.verify(wide, small, step.wide, selection, images) < 1e-4
    path = rp.save(small, tmp_path / "small.safetensors")
    loaded = rp.load(path, model=Dense)
    with torch.no_grad():
        assert torch.equal(loaded(images), small(images))
    with pytest.raises(rp.ArtifactError, match="belongs to another network"):
        rp.load(path, model=lambda: nn.Sequential(nn.Conv2d(3, 8, 3)))


def test_new_weights_are_drawn_and_not_copies_that_would_learn_the_same() -> None:
    torch.manual_seed(0)
    model = Dense()
    wide = rp.widen(model, rp.trace(model, torch.randn(1, 3, 8, 8)), 2.0, seed=1)
    filters = wide.stem.weight.detach().flatten(1)
    assert torch.equal(filters[:8], model.stem.weight.flatten(1))
    assert torch.unique(filters, dim=0).shape[0] == 16
    # No layer draws this parameter: it repeats.
    assert torch.equal(wide.scale, torch.cat([model.scale[:8], model.scale[:8],
                                              model.scale[8:], model.scale[8:]]))  # fmt: skip
    assert wide.deep.groups == wide.deep.in_channels == 40
    assert wide.grouped.groups == 2
    assert wide.norm.num_channels == 32


def test_factors_by_group_rounding_and_names() -> None:
    model = Dense()
    space = rp.trace(model, torch.randn(1, 3, 8, 8), freeze=["a"])
    name = space.groups[0].name
    wide = rp.widen(model, space, {name: 1.3}, round_to=4)
    step = rp.widening_of(wide)
    assert step.wide.widths[0] == 12  # 10.4 to the nearest multiple of 4
    assert np.array_equal(step.wide.widths[1:], space.widths[1:])
    assert [g.name for g in step.wide.groups] == [g.name for g in space.groups]
    assert any("named in freeze" in f.reason for f in step.wide.frozen)
    with pytest.raises(rp.InvalidInputError, match="names no group 'nope'"):
        rp.widen(model, space, {"nope": 2.0})
    with pytest.raises(rp.InvalidInputError, match=r"at least 1\. Got 0\.5"):
        rp.widen(model, space, 0.5)
    with pytest.raises(rp.InvalidInputError, match="was not widened"):
        rp.widening_of(model)


def test_what_does_not_run_wider_stays_with_its_reason() -> None:
    class Limited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3)
            self.second = nn.Conv2d(8, 8, 3)
            self.head = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x).relu()
            if x.shape[1] > 8:
                raise ValueError("at most 8 channels here")
            return self.head(self.second(x).relu().mean((2, 3)))

    model = Limited()
    space = rp.trace(model, torch.randn(1, 3, 8, 8))
    step = rp.widening_of(rp.widen(model, space, 1.5))
    assert step.wide.widths.tolist() == [8, 12]
    assert "at most 8 channels here" in step.stayed["first"]


def test_a_budget_of_the_original_network_is_the_same_limit_on_the_wide_one() -> None:
    model = build_model("randprune:resnet20")
    space = rp.trace(model, torch.zeros(1, 3, 32, 32))
    step = rp.widening_of(rp.widen(model, space, 1.5))
    budget = rp.Budget("macs", 0.5, 0.01)
    found = rp.RandomSearch().ask(
        step.wide, wide_budget(step.space, step.wide, budget), 50, np.random.default_rng(0)
    )
    shares = step.wide.cost("macs")(found) / space.cost("macs").dense
    assert (np.abs(shares - 0.5) <= 0.01 + 1e-12).all()
    assert (found > space.widths).any()


class TwoNames(nn.Module):
    """One convolution and one parameter under two names each; the second name is the one used."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.first = nn.Conv2d(6, 6, 3, padding=1)
        self.second = self.first
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 6)[:, None, None])
        self.again = self.scale
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.stem(x).relu() * self.again)
        return self.head(self.first(x.relu()).mean((2, 3)))


def test_a_layer_under_two_names_is_widened_once() -> None:
    torch.manual_seed(0)
    model, images = TwoNames().eval(), torch.randn(2, 3, 8, 8)
    wide = rp.widen(model, rp.trace(model, images), 1.5).eval()
    step = rp.widening_of(wide)
    assert step.wide.widths.tolist() == [9]
    assert wide.second is wide.first
    small = rp.cut(wide, step.wide, first_channels(step.space)).eval()
    assert torch.equal(small(images), model(images))
    for name, tensor in model.state_dict().items():
        assert torch.equal(small.state_dict()[name], tensor), name
