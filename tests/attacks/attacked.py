"""A network and images that attacks are tried on: small enough for hundreds of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

EXAMPLE = torch.zeros(1, 3, 8, 8)
QUICK: dict[str, Any] = {
    "finalists": {"count": 1, "recovery": ""},
    "output": {"latency_seconds": 0.0},
    "budget": {"tolerance": 0.2},
}


def network(channels: int = 8) -> nn.Sequential:
    """Two convolutions and a classifier of four classes; the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, 4),
        )


class Digits(nn.Sequential):
    """A network for the digits with a place in recipes: `attacked:Digits`."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(8, 10),
        )  # fmt: skip


def images() -> dict[str, tuple[Tensor, Tensor]]:
    """80 random images of four classes as `rp.prune` takes them."""
    drawn = torch.randn(80, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(80) % 4
    return {"train": (drawn[:60], labels[:60]), "test": (drawn[60:], labels[60:])}
