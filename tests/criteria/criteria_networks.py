"""Networks of three layers on which the criteria are compared with plain loops."""

from __future__ import annotations

import torch
from torch import nn

import randprune as rp
from randprune.testing import seeded

SIZE = 6


class Chain(nn.Module):
    """conv + norm + ReLU, a strided conv without norm + tanh (both signs), flatten, linear."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 5, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(5)
        self.two = nn.Conv2d(5, 4, 3, stride=2, padding=1)
        self.three = nn.Linear(4 * 9, 5)

    def forward(self, images):
        maps = torch.relu(self.norm(self.one(images)))
        return self.three(torch.tanh(self.two(maps)).flatten(1))


class Residual(nn.Module):
    """Two coupled convolutions, both with norms, and a grouped one that ties the stage in pairs."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm_one = nn.BatchNorm2d(6)
        self.two = nn.Conv2d(6, 6, 3, padding=1)
        self.norm_two = nn.BatchNorm2d(6)
        self.three = nn.Conv2d(6, 4, 1, groups=2)
        self.head = nn.Linear(4, 5)

    def forward(self, images):
        stage = torch.relu(self.norm_one(self.one(images)))
        stage = torch.relu(stage + self.norm_two(self.two(stage)))
        return self.head(torch.relu(self.three(stage)).mean(dim=(2, 3)))


def traced(make, seed=0):
    """(network in evaluation mode, its space)."""
    model = seeded(make, seed).eval()
    return model, rp.trace(model, torch.zeros(1, 3, SIZE, SIZE))


def images(count=6, seed=1):
    """(images, labels) of five classes."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    return pictures, torch.randint(0, 5, (count,), generator=generator)


def group_of(space, tensor, dim):
    """(number of the group, its slot) that has places along an axis of a tensor."""
    for number, group in enumerate(space.groups):
        for slot in group.slots:
            if (slot.tensor, slot.dim) == (tensor, dim):
                return number, slot
    raise AssertionError(f"{tensor} has no channels along axis {dim}")
