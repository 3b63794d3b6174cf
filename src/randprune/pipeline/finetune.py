"""Fine-tuning of the winner, and of the controls where asked: same recipe, same images, same seed.

Checkpoints let a killed job go on within the epoch; what is finished is kept as a network.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from randprune.pipeline.finalists import Finalist
from randprune.pipeline.job import Job
from randprune.store import LEARNING_RATE, RANDOM, SECONDS, TRAIN_LOSS, TRAIN_TOP1
from randprune.training import Teacher, TrainProgress, TrainRecipe, TrainResult, train
from randprune.training.state import Checkpoint

# Steps between two checkpoints inside an epoch: minutes of work at most, at seconds of cost.
_EVERY_STEPS = 250
# A progress bar moves this often within an epoch.
_TICKS = 100


def fine_tune(
    job: Job, finalists: Mapping[str, Finalist], labels: Mapping[str, str]
) -> dict[str, nn.Module]:
    """The fine-tuned networks by method; empty where the recipe asks for no training.

    Args:
        job: the job.
        finalists: networks to start from, by method.
        labels: what people call them, by method; epochs are recorded under these names.
    """
    section = job.recipe.finetune
    if section is None or section.epochs == 0:
        return {}
    recipe = section.train_recipe(job.seed("finetune"))
    methods = [m for m in finalists if m == RANDOM or section.controls]
    # One teacher for all: the same augmented images come by in each run, and are asked for once.
    teacher = None
    if recipe.distill_weight > 0:
        teacher = Teacher(job.model, precision=recipe.precision)
    return {
        method: _train(job, method, labels[method], finalists[method], recipe, teacher)
        for method in methods
    }


def _train(
    job: Job,
    method: str,
    label: str,
    finalist: Finalist,
    recipe: TrainRecipe,
    teacher: Teacher | None,
) -> nn.Module:
    name = f"finetune/{method}"
    finished = job.kept.file(f"finetuned-{method}").exists()
    total = recipe.epochs * _TICKS
    text = f"Fine-tuning {label} for {recipe.epochs} epochs"

    def run() -> nn.Module:
        def tell(now: TrainProgress) -> None:
            done = (now.epoch - 1) * _TICKS + _TICKS * now.step // now.steps
            running.at(max(running.done, done), loss=now.loss)
            if now.step == now.steps:
                job.run.record_epoch(label, now.epoch, {TRAIN_LOSS: now.loss})

        result = train(
            finalist.network,
            job.data.full_train,
            recipe,
            teacher=teacher,
            checkpoint=Checkpoint(job.work / f"train-{method}", every_steps=_EVERY_STEPS),
            progress=tell,
            device=job.device,
        )
        _record(job, method, label, finalist, result)
        return result.model

    with job.phase(name, text, total=total, done=total if finished else 0) as running:
        return job.kept.network(f"finetuned-{method}", job.model, run)


def _record(job: Job, method: str, label: str, finalist: Finalist, result: TrainResult) -> None:
    with job.run.transaction():
        for epoch in result.history:
            metrics = {
                TRAIN_LOSS: epoch["loss"],
                TRAIN_TOP1: epoch["train_accuracy"],
                LEARNING_RATE: epoch["lr"],
                SECONDS: epoch["seconds"],
            }
            known = {key: value for key, value in metrics.items() if value is not None}
            job.run.record_epoch(label, epoch["epoch"], known)
        macs = job.macs(finalist.selection)
        forward = {macs: result.images_forward}
        dense = job.macs()
        forward[dense] = forward.get(dense, 0) + result.images_teacher
        job.run.add_cost(
            job.entry(
                "finetune",
                f"finetune/{method}",
                seconds=result.seconds,
                forward=forward,
                backward={macs: result.images_backward},
            )
        )
