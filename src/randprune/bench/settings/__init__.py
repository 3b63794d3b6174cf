"""What the networks of a benchmark are made from: one setting a file."""

from __future__ import annotations

from pathlib import Path

from randprune.bench.recipe import BenchRecipe
from randprune.bench.records import Setting
from randprune.bench.settings.base import BenchJob as BenchJob
from randprune.bench.settings.pretrained import PretrainedJob
from randprune.bench.settings.scratch import ScratchJob

_JOBS: dict[Setting, type[BenchJob]] = {"pretrained": PretrainedJob, "scratch": ScratchJob}


def open_job(recipe: BenchRecipe, work: Path, device: str | None = None) -> BenchJob:
    """The work on a recipe, by its setting; `work`: the folder for what lasts until the run ends.

    Raises:
        InfeasibleBudgetError: no configuration meets the budget.
    """
    return _JOBS[recipe.setting](recipe, work, device)
