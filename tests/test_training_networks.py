"""A training step of every network of the coverage list, each batch norm on the fast path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from randprune.training import TrainRecipe, train
from randprune.zoo.splits import TensorSplit

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "benchmarks"))

import coverage  # noqa: E402 - a script beside the package, not an installed module
import coverage_network  # noqa: E402

# Pixels a side. What is not here takes small images; attention with position tables does not.
SMALL = 64
SIDES = {
    "tv:inception_v3": 299,
    "timm:inception_v3": 96,
    "timm:inception_resnet_v2": 96,
    "tv:vit_b_16": 224,
    "timm:coatnet_nano_rw_224": 224,
    "timm:vit_tiny_patch16_224": 224,
    "timm:swin_tiny_patch4_window7_224": 224,
    "timm:halonet26t": 256,
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.usefixtures("every_norm_is_fast")
@pytest.mark.parametrize("name", coverage.read_list(coverage.DEFAULT_LIST))
def test_every_network_trains(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        model, _ = coverage_network.build(name)
    side = SIDES.get(name, SMALL)
    pixels = torch.randint(
        0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    split = TensorSplit(pixels, torch.arange(2), (0.5,) * 3, (0.25,) * 3, num_classes=1000)
    recipe = TrainRecipe(epochs=1, batch_size=2, lr=1e-3)
    trained = train(model, split, recipe).model
    before, after = model.state_dict(), trained.state_dict()
    assert all(bool(torch.isfinite(t).all()) for t in after.values())
    means = [n for n in after if n.endswith("running_mean")]
    moved = [n for n in after if not torch.equal(before[n], after[n])]
    assert set(means) <= set(moved)
    assert len(moved) > len(after) / 3
