"""Trainings that a benchmark does once, for all its rows: kept with what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from torch import nn

from randprune.bench.lab import Lab
from randprune.executors import Tell
from randprune.jobs.ledger import entry
from randprune.jobs.trained import epoch_rows
from randprune.store import CostEntry, EpochRow
from randprune.training import TrainProgress, TrainRecipe, TrainStep, train
from randprune.training.state import Checkpoint
from randprune.zoo.splits import Split

# Steps between two checkpoints inside an epoch: a minute of work at most.
EVERY_STEPS = 250


def train_once(
    lab: Lab,
    name: str,
    start: Callable[[], nn.Module],
    split: Split,
    recipe: TrainRecipe,
    macs: float,
    keep: Callable[[nn.Module], object],
    tell: Tell,
    *,
    step: TrainStep | None = None,
) -> tuple[CostEntry, tuple[EpochRow, ...]]:
    """Train a network and keep it, unless an earlier process has; its cost and its epochs.

    Args:
        lab: of the benchmark.
        name: of the training: its phase and key in the ledger, and what its epochs go by.
        start: makes what is trained.
        split: the images.
        recipe: how.
        macs: of one image, on average over steps where they differ.
        keep: writes what lasts of the trained network.
        tell: receives the share that is done.
        step: what a step computes, instead of cross-entropy.
    """
    if not lab.has_document(name):
        result = train(
            start(),
            split,
            recipe,
            step=step,
            checkpoint=Checkpoint(lab.work / name, every_steps=EVERY_STEPS),
            progress=telling(tell),
            device=lab.device,
        )
        cost = entry(
            name,
            name,
            seconds=result.seconds,
            device=lab.device,
            forward={macs: result.images_forward},
            backward={macs: result.images_backward},
        )
        keep(result.model)
        epochs = [asdict(row) for row in epoch_rows(name, result)]
        lab.keep_document(name, {"cost": asdict(cost), "epochs": epochs})
    found = lab.document(name)
    return CostEntry(**found["cost"]), tuple(EpochRow(**row) for row in found["epochs"])


def telling(tell: Tell) -> Callable[[TrainProgress], None]:
    """A training's progress as the share that is done."""

    def progress(now: TrainProgress) -> None:
        tell((now.epoch - 1 + now.step / now.steps) / now.epochs)

    return progress
