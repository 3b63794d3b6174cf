"""What a benchmark's records say of the run itself: what makes it the same run, and its rules."""

from __future__ import annotations

from pathlib import Path

from randprune.bench.lab import Lab
from randprune.bench.records import DENSE, SCRATCH, MethodInfo, Protocol
from randprune.store import BudgetInfo, ModelInfo, Reproduce, RunKey, SpaceInfo, content_hash
from randprune.zoo.weights import weights_hash

# What does not decide any result, or counts by its content wherever it lies.
_NOT_DECISIVE = ("output", "model", "data", "title", "study")
_DATA_PARTS = (
    "train_fingerprint",
    "test_fingerprint",
    "split_seed",
    "calibration_images",
    "search_images",
)
_SPLITS = ("fit", "calibration", "search", "test")


def key_of(lab: Lab) -> RunKey:
    """What makes two calls the same benchmark: all that decides a result, by content."""
    recipe = lab.recipe
    document = recipe.document()
    model = document.get("model", {})
    traced = {k: v for k, v in model.items() if k in ("freeze", "allow", "as_graph")}
    decisive = {k: v for k, v in document.items() if k not in _NOT_DECISIVE}
    described = lab.data.describe()
    return RunKey(
        kind="bench",
        recipe={**decisive, "trace": traced},
        seed=recipe.seed,
        fingerprint=lab.original.fingerprint,
        weights_hash=weights_hash(lab.untrained),
        data_fingerprint=content_hash({part: described[part] for part in _DATA_PARTS}),
    )


def milestones_of(lab: Lab, recipe_file: str) -> tuple[ModelInfo, SpaceInfo, BudgetInfo, Reproduce]:
    """On which network and images, within which budget, and how to do it again."""
    recipe, sizes = lab.recipe, lab.data.describe()
    model, budget = recipe.network, recipe.budget
    return (
        ModelInfo(
            title=model.spec.rpartition(":")[2],
            name=model.spec,
            weights=Path(model.weights).name,
            data=lab.data.name,
            classes=lab.data.num_classes,
            input_shape=lab.data.image_shape,
            images={split: sizes[f"{split}_images"] for split in _SPLITS},
        ),
        SpaceInfo.from_space(lab.original, lab.reachable()),
        BudgetInfo(budget.metric, budget.ratio, budget.tolerance),
        Reproduce(f"randprune bench {recipe_file}", recipe.to_toml(), recipe_file),
    )


def protocol_of(lab: Lab, hash_of_weights: str) -> Protocol:
    """The rules of a run in its records."""
    recipe = lab.recipe
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
        draw_seeds=tuple(lab.seed("draw", draw) for draw in range(design.draws)),
        training_seeds=tuple(lab.seed("training", 0, n) for n in range(design.trainings)),
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
        notes=lab.notes,
    )
