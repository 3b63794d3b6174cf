"""Fine-tuning of the winner, and of the controls where asked: same recipe, images and seed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from randprune.jobs.finalists import Finalist
from randprune.jobs.job import Job
from randprune.jobs.trained import Training
from randprune.store import SEARCHED
from randprune.training import Teacher, TrainRecipe


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
    methods = [m for m in finalists if m == SEARCHED or section.controls]
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
    training = Training(
        name=f"finetuned-{method}",
        label=label,
        text=f"Fine-tuning {label} for {recipe.epochs} epochs",
        phase="finetune",
        key=f"finetune/{method}",
        recipe=recipe,
        macs=job.macs(finalist.selection),
        teacher=teacher,
        teacher_macs=job.macs(),
    )
    return training.run(job, lambda: finalist.network, job.data.full_train, job.model)
