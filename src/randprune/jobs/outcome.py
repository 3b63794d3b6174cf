"""What a job ends with: the pruned network in a file, and everything that its records hold."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import nn

from randprune.artifact import load, save
from randprune.errors import ArtifactError
from randprune.jobs.identity import network_name, numbered
from randprune.jobs.result import JobRecipes, PruneResult
from randprune.jobs.session import Session
from randprune.lineage import plan_of
from randprune.store import ArtifactInfo, Notes, Run, Verification, Winner


def save_network(recipe: JobRecipes, session: Session, run: Run, small: nn.Module) -> None:
    """Write the pruned network and record the file."""
    asked, budget, info = recipe.model, session.original.budget, run.info
    options: dict[str, Any] = {}
    if asked:
        options = dict(asked.options)
        given = {"num_classes": asked.num_classes, "in_channels": asked.in_channels}
        options |= {name: value for name, value in given.items() if value is not None}
    name = numbered(run, "pruned.safetensors")
    path = save(
        small,
        run.store.folder / name,
        model=network_name(recipe),
        options=options,
        metadata={
            "recipe_hash": info.recipe_hash,
            "weights_hash": info.weights_hash,
            "data_fingerprint": info.data_fingerprint,
            "budget": {"metric": budget.metric, "ratio": budget.ratio},
        },
    )
    content = path.read_bytes()
    run.write(ArtifactInfo(name, len(content), hashlib.sha256(content).hexdigest()))


def finished_network(run: Run, dense: nn.Module) -> nn.Module | None:
    """The network of a finished run; None where its file is gone or is not the recorded one.

    `dense` is what it was cut from.
    """
    info = run.read(ArtifactInfo) if run.finished else None
    if info is None:
        return None
    path = run.store.folder / info.file
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != info.sha256:
            return None
        return load(path, model=dense)
    except (OSError, ArtifactError):
        return None


def result_of(recipe: JobRecipes, session: Session, run: Run, small: nn.Module) -> PruneResult:
    """Everything that the records hold, and the network."""
    plan, winner, verification = plan_of(small), run.read(Winner), run.read(Verification)
    info, notes = run.read(ArtifactInfo), run.read(Notes)
    assert plan is not None
    assert winner is not None
    assert verification is not None
    assert info is not None
    return PruneResult(
        model=small,
        selection=plan.selection,
        space=session.space,
        budget=session.original.budget,
        networks=run.networks(),
        candidates=run.candidates(),
        winner=winner,
        verification=verification,
        ledger=run.ledger(),
        recipe=recipe,
        folder=run.store.folder,
        artifact=run.store.folder / info.file,
        notes=notes.lines if notes else (),
        metric=session.task.metric,
    )
