"""One training of a job: progress, checkpoints, epochs and costs in the records, the network kept.

Checkpoints let a killed job go on within the epoch; what is finished is kept as a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from randprune.jobs.job import Job
from randprune.store import LEARNING_RATE, SECONDS, TRAIN_LOSS, TRAIN_TOP1, EpochRow
from randprune.training import Teacher, TrainProgress, TrainRecipe, TrainResult, TrainStep, train
from randprune.training.state import Checkpoint
from randprune.zoo.splits import Split

# Steps between two checkpoints inside an epoch: minutes of work at most, at seconds of cost.
_EVERY_STEPS = 250
# A progress bar moves this often within an epoch.
_TICKS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """What is trained, and under which names it is kept, shown and recorded.

    Attributes:
        name: of the kept network.
        label: what people call it; epochs are recorded under this name.
        text: what the progress bar says.
        phase, key: of the ledger's entry; `key` also names the progress phase.
        recipe: how to train.
        macs: of one image through the network, on average over steps where they differ.
        teacher: the network to learn from, with its own `teacher_macs`.
        step: what a step computes, instead of cross-entropy and distillation.
    """

    name: str
    label: str
    text: str
    phase: str
    key: str
    recipe: TrainRecipe
    macs: float
    teacher: Teacher | None = None
    teacher_macs: float = 0.0
    step: TrainStep | None = None

    def run(
        self,
        job: Job[Any],
        start: Callable[[], nn.Module],
        split: Split,
        dense: nn.Module,
        finish: Callable[[nn.Module], nn.Module] = lambda trained: trained,
    ) -> nn.Module:
        """The trained network, or the one that an earlier process has kept.

        Args:
            job: whose records and folder these are.
            start: makes the network to start from.
            split: training images.
            dense: what the kept network was cut from, to load it.
            finish: what is kept of the trained network.
        """
        total = max(1, self.recipe.epochs) * _TICKS
        finished = job.kept.file(self.name).exists()

        def work() -> nn.Module:
            def tell(now: TrainProgress) -> None:
                done = (now.epoch - 1) * _TICKS + _TICKS * now.step // now.steps
                running.at(max(running.done, done), loss=now.loss)
                if now.step == now.steps:
                    job.run.record_epoch(self.label, now.epoch, {TRAIN_LOSS: now.loss})

            result = train(
                start(),
                split,
                self.recipe,
                teacher=self.teacher,
                step=self.step,
                checkpoint=Checkpoint(job.work / f"train-{self.name}", every_steps=_EVERY_STEPS),
                progress=tell,
                device=job.device,
            )
            self._record(job, result)
            return finish(result.model)

        with job.phase(self.key, self.text, total=total, done=total if finished else 0) as running:
            return job.kept.network(self.name, dense, work)

    def _record(self, job: Job[Any], result: TrainResult) -> None:
        with job.run.transaction():
            for row in epoch_rows(self.label, result):
                job.run.record_epoch(row.network, row.epoch, row.metrics)
            forward = {self.macs: result.images_forward}
            forward[self.teacher_macs] = forward.get(self.teacher_macs, 0) + result.images_teacher
            job.run.add_cost(
                job.entry(
                    self.phase,
                    self.key,
                    seconds=result.seconds,
                    forward=forward,
                    backward={self.macs: result.images_backward},
                )
            )


def epoch_rows(network: str, result: TrainResult) -> tuple[EpochRow, ...]:
    """The epochs of a training as they are recorded, under the network's name."""
    rows = []
    for epoch in result.history:
        metrics = {
            TRAIN_LOSS: epoch["loss"],
            TRAIN_TOP1: epoch["train_accuracy"],
            LEARNING_RATE: epoch["lr"],
            SECONDS: epoch["seconds"],
        }
        known = {key: value for key, value in metrics.items() if value is not None}
        rows.append(EpochRow(network, epoch["epoch"], known))
    return tuple(rows)
