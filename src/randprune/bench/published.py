"""Published results to set beside those of a benchmark, each with its source."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Published:
    """One published number.

    Attributes:
        method: as its authors call it.
        model, data: "resnet50", "imagenet", ...
        top1: accuracy on the test or validation set, a share.
        source: where it was published, or that it is quoted.
        macs: multiply-adds of one image; None where only a ratio is given.
        ratio: share of the dense network's multiply-adds, about.
        top1_dense, macs_dense: of the network before pruning, where given.
        epochs: of training after or during pruning, where given.
    """

    method: str
    model: str
    data: str
    top1: float
    source: str
    macs: float | None = None
    ratio: float | None = None
    top1_dense: float | None = None
    macs_dense: float | None = None
    epochs: int | None = None


@cache
def published() -> tuple[Published, ...]:
    """All published numbers that the package lists."""
    text = files("randprune.bench").joinpath("published.toml").read_text(encoding="utf-8")
    return tuple(Published(**entry) for entry in tomllib.loads(text)["published"])


def published_for(model: str, data: str) -> tuple[Published, ...]:
    """Those of a network on a data set, best first; `data` may name a folder too: "npz:cifar10"."""
    found = [p for p in published() if p.model == model and p.data in data.lower()]
    return tuple(sorted(found, key=lambda p: -p.top1))
