"""What a benchmark would do and how long it would take, found out in seconds: `--dry-run`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from randprune.bench.lab import Lab
from randprune.bench.pool import workers_of
from randprune.bench.recipe import BenchRecipe
from randprune.bench.run import check_complete
from randprune.bench.units import Unit, proposals, trainings
from randprune.criteria import L1, score
from randprune.evaluate import Evaluator
from randprune.search import RandomSearch
from randprune.surgery import cut, select
from randprune.training import train

# Batches of a trial training, and images of a trial evaluation.
_BATCHES = 6
_IMAGES = 512


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A benchmark, counted and estimated.

    Attributes:
        recipe: what would be done.
        proposals, trainings: the units.
        candidates: how many configurations are evaluated in all.
        workers: processes side by side.
        images_per_second: of training a network at the budget, in one process with one thread.
        search_seconds: of one candidate's evaluation, by the same measurement.
        macs: multiply-adds of all trainings and evaluations of candidates.
    """

    recipe: BenchRecipe
    proposals: tuple[Unit, ...]
    trainings: tuple[Unit, ...]
    candidates: int
    workers: int
    train_images: int
    images_per_second: float
    search_seconds: float
    macs: float

    @classmethod
    def of(cls, recipe: BenchRecipe, device: str | None = None) -> Plan:
        """The plan of a recipe that names a network and images; nothing is written.

        Raises:
            RandpruneError: whatever would stop the benchmark at its start.
        """
        check_complete(recipe, recipe.output.folder)
        with tempfile.TemporaryDirectory(prefix="randprune-") as folder:
            lab = Lab(recipe, Path(folder), device)
            asked = tuple(proposals(recipe))
            every = tuple(unit for made in asked for unit in trainings(recipe, made))
            candidates = sum(getattr(recipe.method(unit.label), "candidates", 0) for unit in asked)
            images = len(lab.data.full_train)
            speed, seconds = _measure(lab)
        half = recipe.budget.ratio * lab.macs
        epochs = sum(unit.epochs for unit in every)
        macs = 3 * half * epochs * images + half * candidates * len(lab.search)
        count = workers_of(recipe, lab.device)
        return cls(recipe, asked, every, candidates, count, images, speed, seconds, macs)

    @property
    def seconds(self) -> dict[str, float]:
        """Estimated wall seconds by phase; preparation and test are not in it."""
        side_by_side = max(1, self.workers)
        epochs = sum(unit.epochs for unit in self.trainings)
        return {
            "propose": (self.candidates + 3 * len(self.proposals)) * self.search_seconds
            / side_by_side,
            "train": epochs * self.train_images / self.images_per_second / side_by_side,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "recipe": self.recipe.document(),
            "rows": list(dict.fromkeys(unit.row for unit in self.proposals)),
            "proposals": len(self.proposals),
            "trainings": len(self.trainings),
            "candidates": self.candidates,
            "epochs": sum(unit.epochs for unit in self.trainings),
            "workers": self.workers,
            "images_per_second_and_worker": self.images_per_second,
            "macs": self.macs,
            "seconds": self.seconds,
        }

    def lines(self) -> list[str]:
        """The plan in words."""
        recipe = self.recipe
        rows = dict.fromkeys(unit.row for unit in self.proposals)
        epochs = sum(unit.epochs for unit in self.trainings)
        minutes = {phase: seconds / 60 for phase, seconds in self.seconds.items()}
        assert recipe.model is not None
        assert recipe.data is not None
        return [
            f"benchmark   {recipe.title}: {recipe.model.spec} on {recipe.data.spec}, "
            f"{recipe.budget.ratio:.0%} of the {recipe.budget.metric}",
            f"rows        {len(rows)}: {', '.join(rows)}",
            f"proposals   {len(self.proposals)} ({recipe.design.draws} draws each), "
            f"{self.candidates:,} candidates evaluated: about {minutes['propose']:.0f} min",
            f"trainings   {len(self.trainings)}, {epochs:,} epochs of {self.train_images:,} images "
            f"in all: about {minutes['train']:.0f} min",
            f"machine     {self.workers} processes side by side, "
            f"{self.images_per_second:,.0f} training images a second each",
            f"compute     {self.macs:.3g} multiply-adds",
            f"output      {recipe.output.folder}",
        ]


def _measure(lab: Lab) -> tuple[float, float]:
    """Training images a second, and seconds of a candidate's evaluation, with one thread."""
    space, recipe = lab.space, lab.recipe
    limits = recipe.proposals
    strategy = RandomSearch(limits.min_keep, limits.round_to)
    widths = strategy.ask(space, recipe.budget.budget(), 1, np.random.default_rng(0))[0]
    network = cut(lab.untrained, space, select(space, score(lab.untrained, space, L1()), widths))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        section = recipe.finetune.recipe(1, 0)
        count = min(len(lab.data.full_train), _BATCHES * section.batch_size)
        part = lab.data.full_train.subset(np.arange(count))
        train(network, part, section, device=lab.device)  # warm-up
        start = time.perf_counter()
        train(network, part, section, device=lab.device)
        speed = count / (time.perf_counter() - start)
        images = lab.search.subset(np.arange(min(_IMAGES, len(lab.search))))
        evaluator = Evaluator(images, precision=limits.precision, device=lab.device)
        evaluator.accuracy(network)
        seconds = evaluator.accuracy(network).seconds * len(lab.search) / len(images)
    finally:
        torch.set_num_threads(threads)
    return speed, seconds
