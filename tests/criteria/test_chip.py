"""Channel independence against singular values of masked matrices."""

from __future__ import annotations

import pytest
import torch
from criteria_networks import Chain, Residual, group_of, images, traced
from torch import nn

import randprune as rp
from randprune.criteria.chip import Chip, nuclear_drops


def drops(maps, rows):
    """Mean over images of ||A||_* - ||A with the rows of channel j zeroed||_*."""
    found = []
    for own in rows:
        total = 0.0
        for image in maps.double():
            masked = image.clone()
            masked[own] = 0.0
            total += float(torch.linalg.matrix_norm(image, ord="nuc"))
            total -= float(torch.linalg.matrix_norm(masked, ord="nuc"))
        found.append(total / len(maps))
    return found


def test_maps_that_a_convolution_and_a_linear_layer_read():
    model, space = traced(Chain)
    pictures, labels = images(4)
    scores = rp.score(model, space, "chip", (pictures, labels))
    with torch.no_grad():
        first = torch.relu(model.norm(model.one(pictures)))
        second = torch.tanh(model.two(first))
    number, _ = group_of(space, "one.weight", 0)
    assert scores[number].tolist() == pytest.approx(
        drops(first.flatten(2), [[j] for j in range(5)]), rel=1e-5
    )
    number, _ = group_of(space, "two.weight", 0)
    assert scores[number].tolist() == pytest.approx(
        drops(second.flatten(2), [[j] for j in range(4)]), rel=1e-5
    )


def test_every_value_of_a_stage_counts_once():
    model, space = traced(Residual)
    pictures, labels = images(4)
    number, slot = group_of(space, "one.weight", 0)
    scores = rp.score(model, space, "chip", (pictures, labels))
    with torch.no_grad():
        first = torch.relu(model.norm_one(model.one(pictures)))
        second = torch.relu(first + model.norm_two(model.two(first)))
    # Tied pairs of channels are one row, their maps one after the other.
    wanted = torch.zeros(3, dtype=torch.float64)
    for maps in (first, second):
        rows = maps.flatten(2)[:, torch.from_numpy(slot.index)].flatten(2)
        wanted += torch.tensor(drops(rows, [[j] for j in range(3)]))
    assert scores[number].tolist() == pytest.approx(wanted.tolist(), rel=1e-5)


def test_two_readers_of_one_value_count_once_and_other_groups_are_rows():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 3, 3)
            self.two = nn.Conv2d(3, 2, 3)
            self.left = nn.Conv2d(5, 4, 1)
            self.right = nn.Conv2d(5, 4, 3, padding=1)
            self.head = nn.Linear(4, 5)

        def forward(self, images):
            maps = torch.relu(torch.cat([self.one(images), self.two(images)], dim=1))
            return self.head(torch.relu(self.left(maps) + self.right(maps)).mean(dim=(2, 3)))

    model, space = traced(Branches)
    pictures, labels = images(4)
    scores = rp.score(model, space, "chip", (pictures, labels))
    with torch.no_grad():
        maps = torch.relu(torch.cat([model.one(pictures), model.two(pictures)], dim=1)).flatten(2)
    wanted = drops(maps, [[j] for j in range(5)])
    assert scores[group_of(space, "one.weight", 0)[0]].tolist() == pytest.approx(wanted[:3])
    assert scores[group_of(space, "two.weight", 0)[0]].tolist() == pytest.approx(wanted[3:])


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (4, 1), (1, 7)])
def test_drops_of_matrices_of_all_shapes(shape):
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    for row in range(shape[0]):
        masked = matrices.clone()
        masked[:, row] = 0.0
        wanted = torch.linalg.matrix_norm(matrices, ord="nuc")
        wanted = wanted - torch.linalg.matrix_norm(masked, ord="nuc")
        assert torch.allclose(nuclear_drops(matrices)[:, row], wanted, rtol=1e-6, atol=1e-7)


def test_drops_of_singular_matrices():
    rows = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 0]], dtype=torch.float64)
    found = nuclear_drops(torch.stack([rows, 1e6 * rows, 0.0 * rows, 1e-6 * rows]))
    wanted = torch.tensor([2**0.5 - 1, 2**0.5 - 1, 2.0, 0.0], dtype=torch.float64)
    for scale, row in zip((1.0, 1e6, 0.0, 1e-6), found, strict=True):
        assert torch.allclose(row, wanted * scale, atol=1e-6 * scale)


def test_a_copy_of_another_map_goes_first():
    model, space = traced(Chain)
    number, _ = group_of(space, "one.weight", 0)
    with torch.no_grad():
        model.one.weight[4] = model.one.weight[1]
        for tensor in (model.norm.weight, model.norm.bias, model.norm.running_mean):
            tensor[4] = tensor[1]
        model.norm.running_var[4] = model.norm.running_var[1]
    found = rp.score(model, space, Chip(images=4), images())[number]
    assert set(found.argsort()[:2].tolist()) == {1, 4}
