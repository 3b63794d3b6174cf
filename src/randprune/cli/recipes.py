"""The recipe that a command line asks for: complete, with an output folder of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from randprune.errors import InvalidInputError

if TYPE_CHECKING:
    from randprune.bench.recipe import BenchRecipe
    from randprune.cli.flags import Asked
    from randprune.jobs.result import JobRecipes
    from randprune.recipe import PruneRecipe, ScratchRecipe

# Data sources of three channels.
_COLOUR = ("imagefolder", "cifar10", "cifar100")

J = TypeVar("J", "PruneRecipe", "ScratchRecipe")
R = TypeVar("R", "PruneRecipe", "ScratchRecipe", "BenchRecipe")


def job_recipe(kind: type[J], asked: Asked) -> J:
    """The recipe of `prune` or `scratch` that flags, file and settings ask for.

    Args:
        kind: the recipe's class.
        asked: the flags and settings, and the file that they change.

    Raises:
        InvalidInputError: an unknown key, a value that does not fit, no network or no images.
    """
    document = with_network_defaults(asked.document(asked.recipe))
    recipe = with_folder(kind, document, asked.recipe)
    _check_named(recipe)
    return recipe


def with_folder(kind: type[R], document: Mapping[str, Any], file: Path | None) -> R:
    """The recipe of this class, with the default folder where none is asked for.

    Args:
        kind: the recipe's class.
        document: its keys: those of a file, over them flags and settings.
        file: where the first came from.

    Raises:
        InvalidInputError: an unknown key, or a value that does not fit.
    """
    where = "these options" if file is None else f"{file} with these options"
    recipe = kind.parse(document, where)
    if recipe.output.folder:
        return recipe
    found = recipe.document()
    found["output"] = {**found.get("output", {}), "folder": default_folder(recipe)}
    return kind.parse(found, where)


def with_network_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """The recipe's document with the mean and deviation that timm says for a network of its own.

    Only where neither is given, and for sources of colour images.
    """
    spec = str(document.get("model", {}).get("spec", ""))
    data = document.get("data", {})
    options = data.get("options", {})
    source, _, name = spec.partition(":")
    kind = str(data.get("spec", "")).partition(":")[0]
    if source != "timm" or kind not in _COLOUR or {"mean", "std"} & options.keys():
        return document
    from randprune.zoo.vision import timm

    package = timm()
    config = package.is_model(name) and package.models.get_pretrained_cfg(name)
    if not config:
        return document
    found = {"mean": list(config.mean), "std": list(config.std)}
    return {**document, "data": {**data, "options": {**options, **found}}}


def _check_named(recipe: JobRecipes) -> None:
    """The recipe of a command names a network and images.

    Raises:
        InvalidInputError: it does not; says how to.
    """
    if recipe.model is None:
        raise InvalidInputError(
            f"No network is given. Name it first, as in: randprune {recipe.job} randprune:resnet20 "
            "..., or in the recipe's [model] section."
        )
    if recipe.data is None:
        raise InvalidInputError(
            "No images are given. Give --data digits, npz:DIR, imagefolder:DIR, cifar10:DIR or "
            "cifar100:DIR, or the recipe's [data] section."
        )


def default_folder(recipe: JobRecipes | BenchRecipe) -> str:
    """A folder of its own for every recipe, the same one each time: runs/resnet20-0.5-1a2b3c.

    A benchmark's is called after its study or title: runs/f1-1a2b3c.
    """
    if recipe.job == "bench":
        name = recipe.study or recipe.title.lower()
    else:
        kind = "" if recipe.job == "prune" else f"-{recipe.job}"
        spec = recipe.model.spec.rpartition(":")[2] if recipe.model else ""
        spec = spec or "network"
        ratios = [f"{budget.ratio:g}" for budget in recipe.budget.budgets()]
        name = f"{spec}{kind}-{'-'.join(ratios)}"
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", name) or recipe.job
    return str(Path("runs") / f"{name}-{recipe.hash()[:6]}")
