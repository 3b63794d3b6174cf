"""What all jobs do around their own steps: records begun, the network saved, the result read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from randprune.artifact import load, save
from randprune.errors import ArtifactError
from randprune.evaluate.threads import decide, using
from randprune.graph.program import Inputs
from randprune.jobs.identity import (
    describe,
    network_name,
    network_options,
    numbered,
    run_key,
)
from randprune.jobs.progress import Progress
from randprune.jobs.result import JobRecipes, PruneResult
from randprune.jobs.session import Session
from randprune.jobs.trainer import Trainer
from randprune.jobs.work_folder import WorkFolder
from randprune.lineage import selection_of
from randprune.recipe import PruneRecipe, ScratchRecipe
from randprune.store import ArtifactInfo, Notes, Run, Store, Verification, Winner
from randprune.tasks import Classification, Task
from randprune.zoo.data import Data

NOT_DECISIVE = ("plugins",)
"""Keys of a job's recipe that do not decide its result by themselves."""


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What a job works on, and where.

    Attributes:
        model: the network; left bit-identical.
        data: the images; the test set is opened once, at the end.
        folder: for records, recipe and the network that comes out.
        progress: is told how far the job is.
        example: what the network is traced with; default: one sample of the data.
        device: where networks are evaluated and trained; default: the GPU if there is one.
        task: what the network is for.
        trainer: the caller's own, instead of the recipe's fine-tuning.
    """

    model: nn.Module
    data: Data
    folder: Path
    progress: Progress
    example: Inputs | None = None
    device: str | None = None
    task: Task = field(default_factory=Classification)
    trainer: Trainer | None = None

    @property
    def place(self) -> torch.device:
        """Where the network is, and where the one that comes out goes."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))


J = TypeVar("J", PruneRecipe, ScratchRecipe)


def as_decided(recipe: J, session: Session) -> J:
    """The recipe with what the network has decided: the step of widths."""
    return recipe.model_copy(update={"search": session.rules})


def begun(recipe: JobRecipes, session: Session, store: Store, given: Given) -> Run:
    """The records of the job, begun now or by an earlier process; the session writes there."""
    run = store.run(run_key(recipe, session, not_decisive=NOT_DECISIVE))
    session.work = WorkFolder(given.folder / "work" / f"run-{run.id}")
    session.ledger, session.progress, session.device = run, given.progress, given.device
    return run


@contextmanager
def at_work(recipe: JobRecipes, session: Session, run: Run, file: str = "") -> Iterator[None]:
    """Within the block the job is done: its records say so, with the threads it began with.

    Afterwards the networks that were made on the way are forgotten.

    Args:
        recipe: what was asked.
        session: of the job.
        run: its records.
        file: of the recipe in the output folder; default: one of the run's own.
    """
    made, file = session.made, file or numbered(run, "recipe.toml")
    with run, using(decide(run.threads).count):
        describe(recipe, session, run, file, f"randprune {recipe.job} --recipe")
        yield
    made.remove()


def save_network(recipe: JobRecipes, session: Session, run: Run, small: nn.Module) -> None:
    """Write the pruned network and record the file."""
    budget, info = session.original.budget, run.info
    name = numbered(run, "pruned.safetensors")
    path = save(
        small,
        run.store.folder / name,
        model=network_name(recipe),
        options=network_options(recipe),
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


def result_of(
    recipe: JobRecipes, session: Session, run: Run, small: nn.Module, given: Given
) -> PruneResult:
    """Everything that the records hold, and the network.

    Raises:
        StorageError: the records of a finished job are not complete.
    """
    notes = run.read(Notes)
    return PruneResult(
        model=small.to(given.place),
        selection=selection_of(small),
        space=session.space,
        budget=session.original.budget,
        networks=run.networks(),
        candidates=run.candidates(),
        winner=run.recorded(Winner),
        verification=run.recorded(Verification),
        ledger=run.ledger(),
        recipe=recipe,
        folder=run.store.folder,
        artifact=run.store.folder / run.recorded(ArtifactInfo).file,
        notes=notes.lines if notes else (),
        metric=session.task.metric,
    )
