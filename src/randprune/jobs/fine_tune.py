"""Fine-tuning of the winner, and of the controls where asked: same recipe, images and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from randprune.errors import InvalidInputError
from randprune.jobs.finalists import Finalist
from randprune.jobs.progress import epochs_in_words
from randprune.jobs.session import Session
from randprune.jobs.train import NamedTraining, trained
from randprune.jobs.trainer import Trainer, trained_by
from randprune.recipe import FinetuneSection
from randprune.store import SEARCHED
from randprune.tasks import Classification
from randprune.training import DenseOutputs, TaskStep, Teacher, TrainRecipe


def fine_tune(
    session: Session,
    section: FinetuneSection | None,
    finalists: Mapping[str, Finalist],
    labels: Mapping[str, str],
    trainer: Trainer | None = None,
) -> dict[str, nn.Module]:
    """The fine-tuned networks by method; empty where the recipe asks for no training.

    Args:
        session: of the job.
        section: how to train, and whom.
        finalists: networks to start from, by method.
        labels: what people call them, by method; epochs are recorded under these names.
        trainer: the caller's own, instead of the section's recipe.

    Raises:
        InvalidInputError: the recipe asks for what the task does not have.
        TrainerError: see `trained_by`.
    """
    if section is None:
        return {}
    chosen = {m: f for m, f in finalists.items() if m == SEARCHED or section.controls}
    if trainer is not None:
        return trained_by(session, trainer, {m: f.network for m, f in chosen.items()}, labels)
    if section.epochs == 0:
        return {}
    recipe = section.train_recipe(session.seeds.seed("finetune"))
    if not (isinstance(session.task, Classification) and session.data.num_classes):
        return _by_task(session, recipe, chosen, labels)
    # One teacher for all: the same augmented images come by in each run, and are asked for once.
    teacher = None
    if recipe.distill_weight > 0:
        teacher = Teacher(session.network, precision=recipe.precision)
    tuned: dict[str, nn.Module] = {}
    for method, finalist in chosen.items():
        training = replace(
            _named(session, recipe, method, finalist, labels[method]),
            teacher=teacher,
            teacher_macs=session.macs(),
        )
        tuned[method] = trained(session, training, finalist.network, session.data.full_train)
    return tuned


def _by_task(
    session: Session,
    recipe: TrainRecipe,
    finalists: Mapping[str, Finalist],
    labels: Mapping[str, str],
) -> dict[str, nn.Module]:
    """By the loss of the task, or towards the dense network's outputs where it has none."""
    if recipe.label_smoothing:
        raise InvalidInputError(
            "label_smoothing belongs to the classification of labelled images; the task is "
            f"{session.task.name!r} of other data. Leave it out."
        )
    tuned: dict[str, nn.Module] = {}
    for method, finalist in finalists.items():
        taught = recipe.distill_weight > 0 or not session.task.needs_targets
        dense = DenseOutputs(session.network) if taught else None
        training = replace(
            _named(session, recipe, method, finalist, labels[method]),
            step=TaskStep(session.task, dense, recipe.distill_weight),
            teacher_macs=session.macs(),
        )
        tuned[method] = trained(session, training, finalist.network, session.data.full_train)
    return tuned


def _named(
    session: Session, recipe: TrainRecipe, method: str, finalist: Finalist, label: str
) -> NamedTraining:
    """The training of one network, with the names under which it is kept, shown and recorded."""
    return NamedTraining(
        name=f"finetuned-{method}",
        label=label,
        text=f"Fine-tuning {label} for {epochs_in_words(recipe.epochs)}",
        phase="finetune",
        key=f"finetune/{method}",
        recipe=recipe,
        macs=session.macs(finalist.selection.widths),
    )
