"""What both jobs write at their ends and read at their beginnings: identity, network, result."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from randprune.artifact import load, save
from randprune.cost import Budget
from randprune.errors import ArtifactError
from randprune.jobs.job import Job
from randprune.jobs.result import JobRecipes, PruneResult
from randprune.lineage import plan_of
from randprune.recipe import CUSTOM
from randprune.space import Space
from randprune.store import (
    ArtifactInfo,
    BudgetInfo,
    ModelInfo,
    Notes,
    Reproduce,
    Run,
    RunKey,
    SpaceInfo,
    Verification,
    Winner,
    content_hash,
)
from randprune.zoo.data import Data
from randprune.zoo.weights import weights_hash

# Keys of a recipe that do not decide which network comes out: weights and images count by their
# content, wherever they lie.
_NOT_DECISIVE = ("output", "model", "data")


def run_key(
    recipe: JobRecipes, model: nn.Module, space: Space, data: Data, example: Tensor
) -> RunKey:
    """What makes two calls the same job: all that decides the result, by content."""
    document = recipe.document()
    traced = {
        k: v for k, v in document.get("model", {}).items() if k in ("freeze", "allow", "as_graph")
    }
    decisive = {k: v for k, v in document.items() if k not in _NOT_DECISIVE}
    described = data.describe()
    parts = (
        "train_fingerprint",
        "test_fingerprint",
        "split_seed",
        "calibration_images",
        "search_images",
    )
    return RunKey(
        kind=recipe.job,
        recipe={**decisive, "trace": {**traced, "example": list(example.shape)}},
        seed=recipe.seed,
        fingerprint=space.fingerprint,
        weights_hash=weights_hash(model),
        data_fingerprint=content_hash({part: described[part] for part in parts}),
    )


def describe(
    job: Job[Any],
    space: Space,
    budget: Budget,
    reachable: tuple[float, float],
    images: Mapping[str, int],
) -> None:
    """Record what is pruned, on which images, under which budget; write the recipe.

    Args:
        job: the job.
        space, budget: of the original network.
        reachable: lowest and highest ratio that any configuration has.
        images: of each part of the data.
    """
    recipe, data = job.recipe, job.data
    spec = _named(recipe)
    with job.run.transaction():
        job.run.write(
            ModelInfo(
                title=spec.rpartition(":")[2] or space.model,
                name=spec,
                weights=Path(recipe.model.weights).name if recipe.model else "",
                data=data.name,
                classes=data.num_classes,
                input_shape=data.image_shape,
                images=images,
            )
        )
        job.run.write(SpaceInfo.from_space(space, reachable))
        job.run.write(BudgetInfo(budget.metric, budget.ratio, budget.tolerance))
        name = _numbered(job.run, "recipe.toml")
        complete = bool(_named(recipe)) and recipe.data is not None
        command = f"randprune {recipe.job} --recipe {name}" if complete else ""
        job.run.write(Reproduce(command, recipe.to_toml(), name))
    recipe.save(job.run.store.folder / name)


def images_of(data: Data) -> dict[str, int]:
    """How many images each part of the data has."""
    sizes = data.describe()
    return {part: sizes[f"{part}_images"] for part in ("fit", "calibration", "search", "test")}


def _named(recipe: JobRecipes) -> str:
    """The network's name for `build_model`; "" where it was given as an object."""
    spec = recipe.model.spec if recipe.model else ""
    return "" if spec.startswith(CUSTOM) else spec


def _numbered(run: Run, name: str) -> str:
    """`name` for the first run in a folder, "name-2" for the second, ..."""
    stem, _, suffix = name.rpartition(".")
    return name if run.id == 1 else f"{stem}-{run.id}.{suffix}"


def save_network(job: Job[Any], budget: Budget, small: nn.Module) -> None:
    """Write the pruned network and record the file."""
    asked = job.recipe.model
    options: dict[str, Any] = {}
    if asked:
        options = dict(asked.options)
        given = {"num_classes": asked.num_classes, "in_channels": asked.in_channels}
        options |= {name: value for name, value in given.items() if value is not None}
    name = _numbered(job.run, "pruned.safetensors")
    info = job.run.info
    path = save(
        small,
        job.run.store.folder / name,
        model=_named(job.recipe),
        options=options,
        metadata={
            "recipe_hash": info.recipe_hash,
            "weights_hash": info.weights_hash,
            "data_fingerprint": info.data_fingerprint,
            "budget": {"metric": budget.metric, "ratio": budget.ratio},
        },
    )
    content = path.read_bytes()
    job.run.write(ArtifactInfo(name, len(content), hashlib.sha256(content).hexdigest()))


def complete(
    job: Job[Any],
    model: nn.Module,
    budget: Budget,
    phases: Callable[[], nn.Module],
    place: torch.device,
) -> PruneResult:
    """The result of a job: what an earlier process ended with, or what its phases now make.

    Args:
        job: the job.
        model: what the network in the folder was cut from.
        budget: as people gave it.
        phases: does what is left; returns the network.
        place: where the network goes.
    """
    if job.run.finished and (found := _finished_network(job, model)) is not None:
        return _result_of(job, budget, found.to(place))
    with job.run:
        small = phases()
    shutil.rmtree(job.work, ignore_errors=True)
    with contextlib.suppress(OSError):  # another run of this folder is not finished
        job.work.parent.rmdir()
    return _result_of(job, budget, small.to(place))


def _finished_network(job: Job[Any], dense: nn.Module) -> nn.Module | None:
    """The network of a finished run; None where its file is gone or is not the recorded one."""
    info = job.run.read(ArtifactInfo)
    if info is None:
        return None
    path = job.run.store.folder / info.file
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != info.sha256:
            return None
        return load(path, model=dense)
    except (OSError, ArtifactError):
        return None


def _result_of(job: Job[Any], budget: Budget, small: nn.Module) -> PruneResult:
    """Everything that the records hold, and the network."""
    run = job.run
    plan, winner, verification = plan_of(small), run.read(Winner), run.read(Verification)
    info, notes = run.read(ArtifactInfo), run.read(Notes)
    assert plan is not None
    assert winner is not None
    assert verification is not None
    assert info is not None
    return PruneResult(
        model=small,
        selection=plan.selection,
        space=job.space,
        budget=budget,
        networks=run.networks(),
        candidates=run.candidates(),
        winner=winner,
        verification=verification,
        ledger=run.ledger(),
        recipe=job.recipe,
        folder=run.store.folder,
        artifact=run.store.folder / info.file,
        notes=notes.lines if notes else (),
    )
