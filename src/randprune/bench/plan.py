"""What a benchmark would do and how long it would take, found out in seconds: `--dry-run`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from randprune.bench.recipe import BenchRecipe
from randprune.bench.records import DENSE
from randprune.bench.run import workers_of
from randprune.bench.settings import open_job
from randprune.bench.units import Propose, Train, evaluations, proposals, trainings
from randprune.evaluate import Evaluator
from randprune.jobs.session import Session
from randprune.jobs.shared_weights import SharedTraining
from randprune.strategies import RandomSearch
from randprune.supernet import first_channels
from randprune.surgery import cut
from randprune.training import train

# Batches of a trial training, and images of a trial evaluation.
_BATCHES = 6
_IMAGES = 512


@dataclass(frozen=True, slots=True, eq=False)
class BenchPlan:
    """A benchmark, counted and estimated.

    Attributes:
        recipe: what would be done.
        proposals, trainings: the units.
        candidates: how many configurations are evaluated in all.
        workers: processes side by side.
        train_images: of each epoch of a training.
        shared_images: of all epochs of the shared weights; 0 where there are none.
        images_per_second: of training a network at the budget, in one process with one thread.
        search_seconds: of one candidate's evaluation, by the same measurement.
        train_macs, search_macs, shared_macs: multiply-adds of all trainings, of all evaluations of
            candidates, and of the shared weights.
        half: multiply-adds of one image through a network at the budget.
    """

    recipe: BenchRecipe
    proposals: tuple[Propose, ...]
    trainings: tuple[Train, ...]
    candidates: int
    workers: int
    train_images: int
    shared_images: int
    images_per_second: float
    search_seconds: float
    train_macs: float
    search_macs: float
    shared_macs: float
    half: float

    @classmethod
    def of(cls, recipe: BenchRecipe, device: str | None = None) -> BenchPlan:
        """The plan of a recipe that names a network and images; nothing is written.

        Raises:
            RandpruneError: whatever would stop the benchmark at its start.
        """
        recipe = recipe.resolved()
        recipe.check_complete(recipe.output.folder)
        with tempfile.TemporaryDirectory(prefix="randprune-") as folder:
            job = open_job(recipe, Path(folder), device)
            session = job.session
            asked = tuple(proposals(recipe))
            every = tuple(unit for made in asked for unit in trainings(recipe, made.key))
            candidates = sum(evaluations(recipe, unit.key) for unit in asked)
            images, macs = len(session.data.full_train), session.original.space.cost("macs").dense
            shared_images, shared_macs = 0, 0.0
            looked_at = len(session.data.search)
            seen = looked_at
            if recipe.supernet is not None:
                seen += len(session.data.calibration)
                shared = SharedTraining.of(
                    recipe.supernet, session.space, session.budget, session.limits, session.seeds
                )
                shared_images = shared.recipe.epochs * len(session.data.fit)
                shared_macs = 3 * shared.macs * shared_images
            speed, seconds = _measure(recipe, session)
            device = job.device
        half = recipe.budget.ratio * macs
        return cls(
            recipe,
            asked,
            every,
            candidates,
            workers_of(recipe, device),
            images,
            shared_images,
            speed,
            seconds * seen / looked_at,
            3 * images * sum(_epochs_times_macs(unit, macs, half) for unit in every),
            half * candidates * seen,
            shared_macs,
            half,
        )

    @property
    def macs(self) -> float:
        """Multiply-adds of all that is counted here."""
        return self.train_macs + self.search_macs + self.shared_macs

    @property
    def seconds(self) -> dict[str, float]:
        """Estimated wall seconds by phase, for the same time per multiply-add throughout.

        Preparation is in it where shared weights are trained, by one process; the test is not.
        """
        side_by_side = max(1, self.workers)
        macs_per_second = 3 * self.half * self.images_per_second
        shared = {"prepare": self.shared_macs / macs_per_second} if self.shared_macs else {}
        return {
            **shared,
            "propose": (self.candidates + 3 * len(self.proposals)) * self.search_seconds
            / side_by_side,
            "train": self.train_macs / macs_per_second / side_by_side,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "recipe": self.recipe.document(),
            "rows": list(dict.fromkeys(str(unit.key.row) for unit in self.proposals)),
            "proposals": len(self.proposals),
            "trainings": len(self.trainings),
            "candidates": self.candidates,
            "epochs": sum(unit.key.epochs for unit in self.trainings),
            "workers": self.workers,
            "images_per_second_and_worker": self.images_per_second,
            "macs": self.macs,
            "seconds": self.seconds,
        }

    def lines(self) -> list[tuple[str, str]]:
        """The plan in words."""
        recipe = self.recipe
        scratch = recipe.setting == "scratch"
        keys = [unit.key for unit in self.proposals]
        rows = dict.fromkeys(key.row.label if scratch else str(key.row) for key in keys)
        epochs = sum(unit.key.epochs for unit in self.trainings)
        takes = {phase: _duration(seconds) for phase, seconds in self.seconds.items()}
        shared, kind = [], ""
        if scratch:
            length = recipe.shared_by.epochs
            each = self.shared_images // length
            kind = " from random weights"
            shared = [
                (
                    "shared",
                    f"weights of all widths, {length} epochs of {each:,} "
                    f"images: {takes['prepare']}",
                )
            ]
        return [
            ("benchmark", f"{recipe.title}: {recipe.network.spec} on {recipe.images.spec}, "
                          f"{recipe.budget.ratio:.0%} of the {recipe.budget.metric}"),
            ("rows", f"{len(rows)}: {', '.join(rows)}"),
            *shared,
            ("proposals", f"{len(self.proposals)} ({recipe.design.draws} draws each), "
                          f"{self.candidates:,} candidates evaluated: {takes['propose']}"),
            ("trainings", f"{len(self.trainings)}{kind}, {epochs:,} epochs of "
                          f"{self.train_images:,} images in all: {takes['train']}"),
            ("machine", f"{self.workers} processes side by side, "
                        f"{self.images_per_second:,.0f} training images a second each"),
            ("compute", f"{self.macs:.3g} multiply-adds"),
            ("output", recipe.output.folder),
        ]  # fmt: skip


def _epochs_times_macs(unit: Train, dense: float, half: float) -> float:
    macs = dense if unit.key.proposal.row.label == DENSE else half
    return unit.key.epochs * macs


def _duration(seconds: float) -> str:
    return "under a minute" if seconds < 60 else f"about {seconds / 60:.0f} min"


def _measure(recipe: BenchRecipe, session: Session) -> tuple[float, float]:
    """Training images a second, and seconds of a candidate's evaluation, with one thread."""
    space, device = session.space, session.device
    strategy = RandomSearch(*session.limits)
    widths = strategy.ask(space, session.budget, 1, np.random.default_rng(0))[0]
    network = cut(session.network, space, first_channels(space, widths))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        section = recipe.trained_by.recipe(1, 0)
        count = min(len(session.data.full_train), _BATCHES * section.batch_size)
        part = session.data.full_train.subset(np.arange(count))
        train(network, part, section, device=device)  # warm-up
        start = time.perf_counter()
        train(network, part, section, device=device)
        speed = count / (time.perf_counter() - start)
        every = session.search_images
        images = every.subset(np.arange(min(_IMAGES, len(every))))
        ranked = recipe.proposals
        evaluator = Evaluator(
            images,
            precision=ranked.precision,
            device=device,
            batch_size=ranked.batch_size,
            choice=ranked.engine,
        )
        evaluator.accuracy(network)
        seconds = evaluator.accuracy(network).seconds * len(every) / len(images)
    finally:
        torch.set_num_threads(threads)
    return speed, seconds
