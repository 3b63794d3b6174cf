"""Fine-tuning of the winner, and of the controls where asked: same recipe, images and seed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from randprune.jobs.finalists import Finalist
from randprune.jobs.progress import epochs_in_words
from randprune.jobs.session import Session
from randprune.jobs.train import NamedTraining, trained
from randprune.recipe import FinetuneSection
from randprune.store import SEARCHED
from randprune.training import Teacher


def fine_tune(
    session: Session,
    section: FinetuneSection | None,
    finalists: Mapping[str, Finalist],
    labels: Mapping[str, str],
) -> dict[str, nn.Module]:
    """The fine-tuned networks by method; empty where the recipe asks for no training.

    Args:
        session: of the job.
        section: how to train, and whom.
        finalists: networks to start from, by method.
        labels: what people call them, by method; epochs are recorded under these names.
    """
    if section is None or section.epochs == 0:
        return {}
    recipe = section.train_recipe(session.seeds.seed("finetune"))
    # One teacher for all: the same augmented images come by in each run, and are asked for once.
    teacher = None
    if recipe.distill_weight > 0:
        teacher = Teacher(session.network, precision=recipe.precision)
    tuned: dict[str, nn.Module] = {}
    for method, finalist in finalists.items():
        if method != SEARCHED and not section.controls:
            continue
        training = NamedTraining(
            name=f"finetuned-{method}",
            label=labels[method],
            text=f"Fine-tuning {labels[method]} for {epochs_in_words(recipe.epochs)}",
            phase="finetune",
            key=f"finetune/{method}",
            recipe=recipe,
            macs=session.macs(finalist.selection.widths),
            teacher=teacher,
            teacher_macs=session.macs(),
        )
        tuned[method] = trained(session, training, finalist.network, session.data.full_train)
    return tuned
