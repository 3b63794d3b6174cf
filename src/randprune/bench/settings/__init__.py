"""What the networks of a benchmark are made from: one setting a file."""

from __future__ import annotations

from pathlib import Path

from randprune.bench.lab import Lab
from randprune.bench.recipe import BenchRecipe
from randprune.bench.records import Setting
from randprune.bench.settings.pretrained import PretrainedLab
from randprune.bench.settings.scratch import ScratchLab

_LABS: dict[Setting, type[Lab]] = {"pretrained": PretrainedLab, "scratch": ScratchLab}


def make_lab(recipe: BenchRecipe, work: Path, device: str | None = None) -> Lab:
    """The lab of a recipe's setting; `work` is the folder for what lasts until the run ends."""
    return _LABS[recipe.setting](recipe, work, device)
