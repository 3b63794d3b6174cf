"""KL against networks that were really cut, and the fast way against the plain one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from criteria_networks import SIZE, Chain, Residual, images, traced
from torch import nn

import randprune as rp
from randprune.criteria import removal
from randprune.criteria.kl import KL
from randprune.space import Selection
from randprune.testing import Normed, labelled_images, seeded


def divergences(model, space, pictures):
    """Mean KL(p without channel j || p), by cutting channel j out and running the small network."""
    with torch.no_grad():
        dense = F.softmax(model(pictures).double(), dim=1)
        found = []
        for number, group in enumerate(space.groups):
            found.append([])
            for channel in range(group.width):
                kept = [np.arange(g.width) for g in space.groups]
                kept[number] = np.delete(kept[number], channel)
                small = rp.cut(model, space, Selection(tuple(kept))).eval()
                ours = F.softmax(small(pictures).double(), dim=1)
                each = (ours * (ours.log() - dense.log())).sum(dim=1)
                found[-1].append(float(each.mean()))
    return found


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("make", [Chain, Residual])
def test_divergence_of_the_network_cut_without_the_channel(make, fast):
    model, space = traced(make)
    pictures, labels = images()
    scores = rp.score(model, space, KL(fast=fast), (pictures, labels), batch_size=4)
    for found, wanted in zip(scores, divergences(model, space, pictures), strict=True):
        assert found.tolist() == pytest.approx(wanted, rel=1e-3, abs=1e-7)


def test_several_channels_go_through_together(monkeypatch):
    model, space = traced(Residual)
    pictures, labels = images()
    wanted = divergences(model, space, pictures)
    seen = []
    plain = removal.Removal.outputs
    monkeypatch.setattr(
        removal.Removal,
        "outputs",
        lambda self, group, channels: seen.append(len(channels)) or plain(self, group, channels),
    )
    for limit in (1, 1 << 30):
        monkeypatch.setattr(removal, "_CPU_BYTES", limit)
        seen.clear()
        scores = rp.score(model, space, "kl", (pictures, labels))
        for a, b in zip(scores, wanted, strict=True):
            assert a.tolist() == pytest.approx(b, rel=1e-3, abs=1e-7)
        # The check of every group takes two at once; then all or one by one.
        checked = len(space.groups)
        assert seen[checked:] == (space.widths.tolist() if limit > 1 else [1] * space.widths.sum())


@pytest.fixture
def slow_calls(monkeypatch):
    """(group, channel) of every plain forward pass without a channel."""
    seen = []
    plain = removal.Masked.outputs

    def counted(self, pictures, group=None, channel=0):
        if group is not None:
            seen.append((group, channel))
        return plain(self, pictures, group, channel)

    monkeypatch.setattr(removal.Masked, "outputs", counted)
    return seen


def test_a_wrong_fast_way_is_noticed_and_not_used(monkeypatch, slow_calls):
    model, space = traced(Residual)
    monkeypatch.setattr(removal, "_cleared", lambda *arguments: arguments[-1])
    monkeypatch.setattr(removal, "_less", lambda step, site, dense, source, places: dense[:0])
    scores = rp.score(model, space, "kl", images())
    for a, b in zip(scores, divergences(model, space, images()[0]), strict=True):
        assert a.tolist() == pytest.approx(b, rel=1e-3, abs=1e-7)
    assert len(slow_calls) == space.widths.sum() + 2 * len(space.groups)


def test_the_fast_way_is_used_for_every_group(slow_calls):
    model = seeded(Normed).eval()
    space = rp.trace(model, torch.zeros(1, 3, 8, 8))
    rp.score(model, space, "kl", labelled_images())
    ends = [(n, c) for n, g in enumerate(space.groups) for c in (0, g.width - 1)]
    assert slow_calls == ends


class FixedBatch(nn.Module):
    """Its forward holds the batch size."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3)
        self.two = nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 5)

    def forward(self, images):
        maps = torch.relu(self.two(torch.relu(self.one(images))))
        return self.head(maps.mean(dim=(2, 3)).reshape(6, -1))


def test_networks_that_fix_the_batch_size_are_run_plainly(slow_calls):
    model = seeded(FixedBatch).eval()
    space = rp.trace(model, torch.zeros(6, 3, SIZE, SIZE))
    pictures, labels = images(6)
    scores = rp.score(model, space, "kl", (pictures, labels))
    for a, b in zip(scores, divergences(model, space, pictures), strict=True):
        assert a.tolist() == pytest.approx(b, rel=1e-3, abs=1e-7)
    assert len(slow_calls) == 8


class InPlace(nn.Module):
    """Writes in place after a branch has read the value, and through a view."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 4, 1)
        self.two = nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, images):
        maps = self.one(images)
        left = self.left(maps)
        maps.relu_()
        maps += left
        maps = self.two(maps)
        maps[:, :, 0].mul_(2.0)
        return self.head(nn.functional.relu(maps, inplace=True).mean(dim=(2, 3)))


def test_in_place_operators_keep_their_order():
    model, space = traced(InPlace)
    pictures, labels = images()
    scores = rp.score(model, space, "kl", (pictures, labels))
    for a, b in zip(scores, divergences(model, space, pictures), strict=True):
        assert a.tolist() == pytest.approx(b, rel=1e-3, abs=1e-7)


def test_pixels_of_a_segmentation_are_averaged():
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1))).eval()
    space = rp.trace(model, torch.zeros(1, 3, SIZE, SIZE))
    pictures, labels = images()
    (found,) = rp.score(model, space, "kl", (pictures, labels))
    with torch.no_grad():
        read = torch.relu(model[0](pictures))
        dense = F.log_softmax(model[2](read).double(), dim=1)
        for channel in range(4):
            masked = read.clone()
            masked[:, channel] = 0.0
            ours = F.log_softmax(model[2](masked).double(), dim=1)
            wanted = (ours.exp() * (ours - dense)).sum(dim=1).mean()
            assert float(found[channel]) == pytest.approx(float(wanted), rel=1e-3)


def test_emitted_networks(slow_calls):
    """Groups that can be cut only in the emitted graph (a constant pad) are scored too."""

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 4, 3, padding=1)
            self.two = nn.Conv2d(4, 6, 3, padding=1)
            self.head = nn.Linear(6, 5)

        def forward(self, images):
            one = torch.relu(self.one(images))
            two = torch.relu(self.two(one) + F.pad(one, (0, 0, 0, 0, 1, 1)))
            return self.head(two.mean(dim=(2, 3)))

    model = seeded(Padded).eval()
    space = rp.trace(model, torch.zeros(1, 3, SIZE, SIZE), as_graph=True)
    assert len(space.groups) >= 2
    pictures, labels = images()
    scores = rp.score(model, space, "kl", (pictures, labels))
    for a, b in zip(scores, divergences(model, space, pictures), strict=True):
        assert a.tolist() == pytest.approx(b, rel=1e-3, abs=1e-7)
    assert len(slow_calls) == 2 * len(space.groups)
    for name in ("l1", "taylor", "chip", "empirical_sensitivity"):
        assert len(rp.score(model, space, name, (pictures, labels))) == len(space.groups)
