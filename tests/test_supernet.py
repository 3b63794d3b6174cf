"""Shared weights: a sub-network is the network cut out, and steps touch its slices alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import randprune as rp
from randprune.supernet import SharedStep, Supernet, first_channels, initialise
from randprune.training import Checkpoint, TrainRecipe, train
from randprune.zoo.models import build_model
from randprune.zoo.splits import TensorSplit


class Mixed(nn.Module):
    """A concat, a depthwise and a grouped convolution, norms with and without tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.branch = nn.Conv2d(8, 6, 3, padding=1)
        self.deep = nn.Conv2d(14, 14, 3, padding=1, groups=14)
        self.bare = nn.BatchNorm2d(14, affine=False)
        self.mix = nn.utils.parametrizations.weight_norm(nn.Conv2d(14, 16, 1))
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.group_norm = nn.GroupNorm(4, 16)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 16)[:, None, None])
        self.head = nn.Linear(16 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu()
        x = torch.cat([x, self.branch(x).relu()], 1)
        x = self.mix(self.bare(self.deep(x)))
        x = self.group_norm(self.grouped(x)).relu() * self.scale
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


NETWORKS = {
    "mixed": Mixed,
    "resnet20": lambda: build_model("randprune:resnet20"),
    "mobilenet_v2": lambda: build_model("randprune:mobilenet_v2"),
}


def supernet(name: str) -> Supernet:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    wide = rp.widen(model, rp.trace(model, torch.zeros(1, 3, 32, 32)), 1.5)
    return Supernet(initialise(wide, 1), rp.widening_of(wide).wide)


def draw(shared: Supernet, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    full = shared.space.widths
    return np.maximum(1, np.round(rng.uniform(0.2, 1.0, full.size) * full)).astype(np.int64)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_sub_network_is_the_network_cut_out_bit_for_bit(name: str, tmp_path: Path) -> None:
    shared = supernet(name)
    images = torch.randn(2, 3, 32, 32)
    for seed, training in ((0, False), (1, True), (2, False)):
        widths = draw(shared, seed)
        small = shared.subnetwork(widths).train(training)
        if seed == 0:
            path = rp.save(small, tmp_path / "small.safetensors")
            small = rp.load(path, model=NETWORKS[name]).train(training)
        shared.train(training).configure(widths)
        torch.manual_seed(0)
        ours = shared(images)
        torch.manual_seed(0)
        assert torch.equal(small(images), ours)
        assert ours.abs().max() > 0


@pytest.mark.parametrize("name", ["mixed", "resnet20"])
def test_gradients_are_those_of_the_network_alone_and_zero_elsewhere(name: str) -> None:
    shared = supernet(name)
    images = torch.randn(4, 3, 32, 32)
    widths = draw(shared, 3)
    small = shared.subnetwork(widths).train()
    small(images).square().sum().backward()
    shared.train().configure(widths)
    shared(images).square().sum().backward()
    alone = dict(small.named_parameters())
    used = shared.used(widths[None])
    assert used
    for key, parameter in shared.shared.named_parameters():
        mask = used.get(key, torch.ones((), dtype=torch.bool)).expand_as(parameter)
        assert parameter.grad is not None
        assert not parameter.grad[~mask].any()
        assert torch.equal(parameter.grad[mask], alone[key].grad.flatten())


def test_a_sub_network_costs_what_its_widths_say() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    shared = supernet("resnet20").eval()
    widths = draw(shared, 4)
    shared.configure(widths)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shared(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() / 2 == shared.space.cost("macs")(widths)


def images(count: int = 64) -> TensorSplit:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 5, (count,), generator=generator)
    return TensorSplit(pixels, labels, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), num_classes=5)


RECIPE = TrainRecipe(epochs=2, batch_size=16, lr=0.1, precision="float32", weight_decay=0.01)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_updates_reach_only_the_slices_in_use(optimizer: str) -> None:
    shared = supernet("mixed")
    before = {key: value.detach().clone() for key, value in shared.named_parameters()}
    pool = np.stack([draw(shared, seed) for seed in (5, 6)])
    recipe = RECIPE.replace(optimizer=optimizer, lr=0.05)
    trained = train(shared, images(), recipe, step=SharedStep(pool)).model
    used = shared.used(pool)
    moved = 0
    for key, value in trained.named_parameters():
        mask = used.get(key.removeprefix("shared."), torch.ones((), dtype=torch.bool))
        changed = value.detach() != before[key]
        assert not (changed & ~mask).any()
        moved += int(changed.sum())
    assert moved > 500


def test_momentum_of_unused_slices_waits() -> None:
    """Two alternating configurations: each slice sees the momentum of its own steps alone."""
    shared = supernet("mixed")
    widths = shared.space.widths.copy()
    narrow = widths.copy()
    group = next(
        g
        for g, group in enumerate(shared.space.groups)
        if ("mix.bias", 0) in [(slot.tensor, slot.dim) for slot in group.slots]
    )
    narrow[group] = 2
    optimizer = torch.optim.SGD(shared.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    step = SharedStep(np.stack([widths]))
    step.attach(shared, optimizer)
    bias = shared.shared.mix.bias
    assert bias is not None
    places = np.setdiff1d(
        np.arange(len(bias)),
        next(s for s in shared.space.groups[group].slots if s.tensor == "mix.bias").index[:2],
    )
    states = []
    for rows in ([widths], [narrow], [narrow]):
        assert step._guard is not None
        step._guard.rows = np.array(rows)
        optimizer.zero_grad()
        shared.configure(rows[0])
        shared(torch.randn(4, 3, 8, 8)).sum().backward()
        optimizer.step()
        states.append((bias.detach().clone(), optimizer.state[bias]["momentum_buffer"].clone()))
    for weights, momentum in states[1:]:
        assert torch.equal(weights[places], states[0][0][places])
        assert torch.equal(momentum[places], states[0][1][places])
        assert (weights != states[0][0]).any()


def told_by_brightness(count: int = 64) -> TensorSplit:
    """Five classes that can be learnt in a few steps."""
    labels = torch.arange(count) % 5
    pixels = (50 * labels.view(-1, 1, 1, 1)).expand(-1, 3, 8, 8).to(torch.uint8)
    return TensorSplit(pixels.contiguous(), labels, (0.5,) * 3, (0.25,) * 3, num_classes=5)


def test_sandwich_and_distillation_train_both_ends() -> None:
    shared = supernet("mixed")
    pool = np.stack([draw(shared, 7)])
    narrowest = np.maximum(1, shared.space.widths // 4)
    step = SharedStep(pool, sandwich=True, narrowest=narrowest, distill=True)
    split = told_by_brightness()
    recipe = RECIPE.replace(epochs=10, augment=False)
    trained = train(shared, split, recipe, step=step).model
    assert len(step.rows(torch.Generator())) == 3
    batch, labels = next(split.batches(64))
    for widths in (shared.space.widths, narrowest):
        before, after = (
            nn.functional.cross_entropy(at(network, widths)(batch), labels).item()
            for network in (shared, trained)
        )
        assert after < 0.4 * before
    with pytest.raises(rp.InvalidInputError, match="Set sandwich=True"):
        SharedStep(pool, distill=True)
    with pytest.raises(rp.InvalidInputError, match="needs 'narrowest'"):
        SharedStep(pool, sandwich=True)
    with pytest.raises(rp.InvalidInputError, match="Got Mixed instead"):
        train(Mixed(), images(), RECIPE, step=step)


def at(network: nn.Module, widths: np.ndarray) -> Supernet:
    """The shared weights at one configuration, in training mode as while they were trained."""
    assert isinstance(network, Supernet)
    network = copy.deepcopy(network).train()
    network.configure(widths)
    return network


@pytest.mark.parametrize("distill", [False, True])
def test_a_step_is_the_mean_over_its_configurations(distill: bool) -> None:
    """The learning rate must mean the same whatever their number."""
    shared = supernet("mixed").train()
    pool = np.stack([draw(shared, seed) for seed in (7, 8, 9)])
    narrowest = np.maximum(1, shared.space.widths // 4)
    step = SharedStep(pool, per_step=2, sandwich=True, narrowest=narrowest, distill=distill)
    step.attach(shared, torch.optim.SGD(shared.parameters(), lr=0.1))
    batch, labels = next(images().batches(16))
    rows = step.rows(torch.Generator().manual_seed(3))
    assert len(rows) == 4
    logits = [at(shared, row)(batch).detach() for row in rows]
    taught = logits[0].softmax(1) if distill else labels
    losses = [
        nn.functional.cross_entropy(found, labels if number == 0 else taught)
        for number, found in enumerate(logits)
    ]
    got = step(shared, (batch, labels), torch.Generator().manual_seed(3))
    torch.testing.assert_close(got.loss, torch.stack(losses).mean())
    assert torch.equal(got.logits, logits[-1])


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    shared = supernet("mixed")
    pool = np.stack([draw(shared, seed) for seed in range(8, 12)])
    whole = train(shared, images(), RECIPE, step=SharedStep(pool)).model

    class Stop(Exception):
        pass

    def interrupt(now: object) -> None:
        if (now.epoch, now.step) == (2, 4):  # type: ignore[attr-defined]
            raise Stop

    saves = Checkpoint(tmp_path, every_steps=1)
    with pytest.raises(Stop):
        train(shared, images(), RECIPE, step=SharedStep(pool), checkpoint=saves, progress=interrupt)
    again = train(shared, images(), RECIPE, step=SharedStep(pool), checkpoint=saves)
    assert again.epochs_resumed == 1
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key
    with pytest.raises(rp.InvalidInputError, match=r"another run: step\.pool"):
        train(shared, images(), RECIPE, step=SharedStep(pool[:2]), checkpoint=saves)


def test_copies_are_independent_and_spaces_are_checked() -> None:
    shared = supernet("mixed")
    shared(torch.zeros(1, 3, 8, 8))
    other = copy.deepcopy(shared)
    with torch.no_grad():
        other.shared.head.weight.zero_()
        other.shared.head.bias.zero_()
    assert not other(torch.randn(1, 3, 8, 8)).any()
    assert shared(torch.randn(1, 3, 8, 8)).any()
    with pytest.raises(rp.InvalidInputError, match="must keep between 1 and"):
        shared.configure(shared.space.widths + 1)
    assert first_channels(shared.space, shared.space.widths) == shared.space.dense
    assert replace(shared.space).fingerprint == shared.space.fingerprint
