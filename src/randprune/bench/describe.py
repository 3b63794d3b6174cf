"""The rules of a benchmark in its records."""

from __future__ import annotations

from randprune.bench.records import DENSE, SCRATCH, MethodInfo, Protocol
from randprune.bench.settings import BenchJob


def protocol_of(job: BenchJob, hash_of_weights: str) -> Protocol:
    """The rules of a run in its records."""
    recipe, seeds = job.recipe, job.session.seeds
    described = []
    for label, section in recipe.methods.items():
        method = recipe.method(label)
        described.append(
            MethodInfo(
                label=label,
                method=recipe.method_name(label),
                options=section.options,
                criteria=recipe.criteria_of(label),
                epochs=recipe.epochs_of(label),
                words=method.words,
            )
        )
    if recipe.setting == "scratch":
        words = "The dense network at full width, trained like all others: no method of the budget."
        described.append(MethodInfo(DENSE, DENSE, {}, (SCRATCH,), recipe.epochs_of(DENSE), words))
    design = recipe.design
    return Protocol(
        title=recipe.title,
        setting=recipe.setting,
        weights_hash=hash_of_weights,
        methods=tuple(described),
        reference=recipe.reference,
        draw_seeds=tuple(seeds.seed("draw", draw) for draw in range(design.draws)),
        training_seeds=tuple(seeds.seed("training", 0, n) for n in range(design.trainings)),
        recovery=recipe.recovery,
        study=recipe.study,
        rank_by=recipe.proposals.rank_by,
        min_keep=recipe.proposals.min_keep,
        round_to=recipe.proposals.round_to,
        finetune=recipe.trained_by.model_dump(),
        margin=design.margin,
        confidence=design.confidence,
        widen=recipe.widen.model_dump() if recipe.widen else {},
        supernet=recipe.supernet.model_dump(exclude_none=True) if recipe.supernet else {},
        notes=job.notes,
    )
