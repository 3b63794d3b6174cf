"""What a benchmark's recipe means from scratch: defaults of its own, keys that mean nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from randprune.bench.records import DENSE
from randprune.bench.sections import BenchKeys


def scratch_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's document with the defaults of this setting where it says nothing."""
    single = {"method": "random_search", "options": {"candidates": 1}}
    defaults: dict[str, Any] = {
        "criteria": (),
        "recovery": "",
        "finetune": None,
        "methods": {"random_search": {}, "uniform": {}, "random_configuration": single},
        "widen": {},
        "supernet": {},
        "training": {},
        "proposals": {},
        "design": {},
    }
    found = {**defaults, **{key: value for key, value in document.items() if value is not None}}
    for section, given in (("proposals", {"rank_by": "accuracy"}), ("design", {"epochs": (20,)})):
        if isinstance(found[section], Mapping):
            found[section] = {**given, **found[section]}
    return found


def check_scratch(recipe: BenchKeys) -> None:
    """Refuse keys that mean nothing without a trained network.

    Raises:
        ValueError: names the first such key, why, and what to do.
    """
    for what, why in _meaningless(recipe):
        raise ValueError(f'{what} has no meaning with setting = "scratch": {why}')


def _meaningless(recipe: BenchKeys) -> Iterator[tuple[str, str]]:
    """What a recipe from scratch gives and must not, and what to do about it."""
    unranked = (
        "no criterion ranks channels, every network keeps the first ones of each group. "
        "Leave it out."
    )
    if recipe.model and recipe.model.weights:
        yield "model.weights", "all networks are trained from random weights. Leave it out."
    if recipe.model and recipe.model.as_graph:
        yield "model.as_graph", "what is cut as a graph cannot be widened. Leave it out."
    if recipe.pretrain is not None:
        yield "[pretrain]", "the dense network is trained beside the others. Leave it out."
    if recipe.finetune is not None:
        yield "[finetune]", "there is nothing to tune yet. Give these keys in [training]."
    if recipe.criteria:
        yield "criteria", unranked
    if recipe.recovery:
        yield "recovery", "there are no trained weights to repair. Leave it out."
    if recipe.proposals.rank_by == "kl":
        yield (
            'proposals.rank_by = "kl"',
            "there are no outputs of a trained network to diverge from. Give accuracy or loss.",
        )
    trained = {"supernet": recipe.supernet, "training": recipe.training}
    for name, how in trained.items():
        if how is not None and how.distill_weight > 0:
            yield f"{name}.distill_weight", "there is no trained teacher. Leave it out."
    if 0 in recipe.design.epochs:
        yield "0 in design.epochs", "networks need training. Give lengths of 1 and more."
    for label, section in recipe.methods.items():
        if label == DENSE:
            yield (
                f"[methods.{DENSE}]",
                "the dense network is trained beside the others anyway. Choose another name.",
            )
        if section.criteria is not None:
            yield f"methods.{label}.criteria", unranked
        if 0 in (section.epochs or ()):
            yield f"0 in methods.{label}.epochs", "networks need training. Leave it out."
    shared = recipe.supernet
    if shared is not None and shared.distill and not shared.sandwich:
        yield (
            "supernet.distill without supernet.sandwich",
            "only the sandwich rule trains the widest network, which the others learn from. "
            "Set supernet.sandwich = true.",
        )
