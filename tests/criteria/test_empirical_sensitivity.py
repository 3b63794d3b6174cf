"""Empirical sensitivity against loops over images, outputs and positions."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from criteria_networks import Chain, Residual, group_of, images, traced
from torch import nn

import randprune as rp
from randprune.criteria.empirical_sensitivity import EmpiricalSensitivity


def signs(value):
    return (max(value, 0.0), max(-value, 0.0))


def share(places, weights, values):
    """Largest share of the inputs `places` among all inputs of one pre-activation.

    `weights` and `values`: input number -> list of numbers (kernel positions).
    """
    best = 0.0
    for a, b in itertools.product((0, 1), (0, 1)):
        parts = {
            k: sum(signs(w)[a] * signs(x)[b] for w, x in zip(weights[k], values[k], strict=True))
            for k in weights
        }
        total = sum(parts.values())
        if total > 0:
            best = max(best, sum(parts[p] for p in places) / total)
    return best


def conv_shares(weight, values, places, stride=1, padding=0, groups=1):
    """Per channel (a list of places each) the largest share in any output of a convolution."""
    outputs, per_group, kernel, _ = weight.shape
    values = F.pad(values, (padding,) * 4)
    best = [0.0] * len(places)
    size = (values.shape[2] - kernel) // stride + 1
    for image, i, y, x in itertools.product(
        range(len(values)), range(outputs), range(size), range(size)
    ):
        first = i // (outputs // groups) * per_group
        window = values[
            image, :, y * stride : y * stride + kernel, x * stride : x * stride + kernel
        ]
        numbers = {first + k: weight[i, k].flatten().tolist() for k in range(per_group)}
        read = {first + k: window[first + k].flatten().tolist() for k in range(per_group)}
        for j, own in enumerate(places):
            best[j] = max(best[j], share([p for p in own if p in numbers], numbers, read))
    return best


def linear_shares(weight, rows, places):
    best = [0.0] * len(places)
    for row, i in itertools.product(range(len(rows)), range(len(weight))):
        numbers = {k: [float(weight[i, k])] for k in range(weight.shape[1])}
        read = {k: [float(rows[row, k])] for k in range(weight.shape[1])}
        for j, own in enumerate(places):
            best[j] = max(best[j], share(own, numbers, read))
    return best


def test_a_strided_convolution_and_a_linear_layer_after_flattening():
    model, space = traced(Chain)
    pictures, labels = images(2)
    scores = rp.score(model, space, "empirical_sensitivity", (pictures, labels))
    with torch.no_grad():
        first = torch.relu(model.norm(model.one(pictures)))
        second = torch.tanh(model.two(first)).flatten(1)
    assert bool((second < 0).any()), "the test needs negative activations"
    number, slot = group_of(space, "two.weight", 1)
    wanted = conv_shares(model.two.weight.detach(), first, slot.index.tolist(), 2, 1)
    assert scores[number].tolist() == pytest.approx(wanted, rel=1e-4)
    number, slot = group_of(space, "three.weight", 1)
    assert slot.index.shape == (4, 9)
    wanted = linear_shares(model.three.weight.detach(), second, slot.index.tolist())
    assert scores[number].tolist() == pytest.approx(wanted, rel=1e-4)


def test_coupled_readers_add_up_and_groups_of_a_convolution_are_apart():
    model, space = traced(Residual)
    pictures, labels = images(2)
    scores = rp.score(model, space, "empirical_sensitivity", (pictures, labels))
    with torch.no_grad():
        first = torch.relu(model.norm_one(model.one(pictures)))
        second = torch.relu(first + model.norm_two(model.two(first)))
    number, two = group_of(space, "two.weight", 1)
    _, grouped = group_of(space, "three.weight", 1)
    assert two.index.shape == (3, 2)
    assert grouped.index.shape == (3, 1)
    inner = conv_shares(model.two.weight.detach(), first, two.index.tolist(), 1, 1)
    outer = conv_shares(
        model.three.weight.detach(), second, [[j, j + 3] for j in range(3)], groups=2
    )
    wanted = [a + b for a, b in zip(inner, outer, strict=True)]
    assert scores[number].tolist() == pytest.approx(wanted, rel=1e-4)


def test_one_channel_alone_has_the_whole_share():
    model, space = traced(Chain)
    number, _ = group_of(space, "one.weight", 0)
    with torch.no_grad():
        model.norm.weight.fill_(0.0)
        model.norm.bias.copy_(torch.tensor([-1.0, -1.0, 1.0, -1.0, -1.0]))
    scores = rp.score(model, space, "empirical_sensitivity", images())
    assert scores[number].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]


def test_images_are_taken_evenly():
    model, space = traced(Chain)
    pictures, labels = images(8)
    few = rp.score(model, space, EmpiricalSensitivity(images=2), (pictures, labels))
    picked = rp.score(model, space, "empirical_sensitivity", (pictures[[3, 7]], labels[[3, 7]]))
    for a, b in zip(few, picked, strict=True):
        assert torch.allclose(a, b, rtol=1e-4)


class OneAxis(nn.Module):
    """Convolutions along one axis, with padding by name."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv1d(18, 4, 3, padding=1)
        self.two = nn.Conv1d(4, 5, 4, padding="same")

    def forward(self, images):
        return self.two(torch.relu(self.one(images.flatten(1, 2)))).mean(dim=2)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_convolutions_along_one_axis():
    model, space = traced(OneAxis)
    pictures, labels = images(2)
    with torch.no_grad():
        read = torch.relu(model.one(pictures.flatten(1, 2)))
    padded = F.pad(read, (1, 2))
    wanted = [0.0] * 4
    weight = model.two.weight.detach()
    for image, i, x in itertools.product(range(2), range(5), range(6)):
        numbers = {k: weight[i, k].tolist() for k in range(4)}
        values = {k: padded[image, k, x : x + 4].tolist() for k in range(4)}
        for j in range(4):
            wanted[j] = max(wanted[j], share([j], numbers, values))
    scores = rp.score(model, space, "empirical_sensitivity", (pictures, labels))
    assert scores[0].tolist() == pytest.approx(wanted, rel=1e-4)


def test_layers_it_cannot_look_into_are_named():
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 4, 3)
            self.up = nn.ConvTranspose2d(4, 5, 2)

        def forward(self, images):
            return self.up(torch.relu(self.one(images))).mean(dim=(2, 3))

    model, space = traced(Transposed)
    with pytest.raises(rp.UnsupportedModelError, match=r"cannot look into up \(conv_transpose2d"):
        rp.score(model, space, "empirical_sensitivity", images())
