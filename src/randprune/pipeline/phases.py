"""The main job: a pre-trained network in, a smaller, repaired, verified, fine-tuned one out.

Phases: trace, dense reference, calibration, search, controls, finalists, verification, fine-tuning,
latency, test. Each of them looks into the records for what an earlier process has done, so that the
same call after `kill -9` continues where that one stopped and ends with the same network.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from randprune.artifact import load, save
from randprune.criteria import Criterion
from randprune.errors import ArtifactError
from randprune.graph.program import in_mode, private_copy
from randprune.graph.trace import trace
from randprune.pipeline.final import Entrant, entrant, final_numbers
from randprune.pipeline.finalists import Finalist, choose_winner, verify_cut
from randprune.pipeline.finetune import fine_tune
from randprune.pipeline.job import Job
from randprune.pipeline.progress import Progress, phase
from randprune.pipeline.result import PruneResult
from randprune.pipeline.search import controls, create_strategy, search
from randprune.pipeline.workshop import Workshop
from randprune.plan import plan_of
from randprune.recipe import CUSTOM, PruneRecipe
from randprune.recovery import images_forward
from randprune.search import Strategy, reachable
from randprune.search.feasible import require_reachable
from randprune.space import Space
from randprune.store import (
    DENSE,
    RANDOM,
    RANDOM_CHANNELS,
    UNIFORM,
    ArtifactInfo,
    BudgetInfo,
    ModelInfo,
    Notes,
    Reproduce,
    Run,
    RunKey,
    SpaceInfo,
    Store,
    Verification,
    Winner,
    content_hash,
)
from randprune.zoo.data import Data
from randprune.zoo.weights import weights_hash

# Keys of a recipe that do not decide which network comes out: weights and images count by their
# content, wherever they lie.
_NOT_DECISIVE = ("output", "model", "data")
_PART_SIZES = ("calibration_images", "search_images")


def prune_network(
    recipe: PruneRecipe,
    model: nn.Module,
    data: Data,
    folder: Path,
    progress: Progress,
    *,
    example: Tensor | None = None,
    criterion: Criterion | None = None,
    strategy: Strategy | None = None,
    device: str | None = None,
) -> PruneResult:
    """Do the whole job that a recipe describes, or what is left of it.

    Args:
        recipe: what to do.
        model: the trained network; left bit-identical.
        data: the images; the test set is opened once, at the end.
        folder: for records, recipe and the pruned network.
        progress: is told how far the job is.
        example: what the network is traced with; default: one image of the data.
        criterion, strategy: objects, instead of those that the recipe names.
        device: where networks are evaluated and trained; default: the GPU if there is one.
    """
    with Store.open(folder) as store:
        place = next((p.device for p in model.parameters()), torch.device("cpu"))
        dense = model if place.type == "cpu" else private_copy(model).cpu()
        if example is None:
            example = next(data.calibration.batches(1))[0]
        with phase(progress, "trace", "Tracing the network"):
            asked = recipe.model
            space = trace(
                dense,
                example.cpu(),
                asked.freeze if asked else (),
                as_graph=asked.as_graph if asked else False,
                allow=asked.allow if asked else (),
            )
        budget = recipe.budget.budget()
        require_reachable(space, budget, recipe.search.min_keep, recipe.search.round_to)
        run = store.run(_key(recipe, dense, space, data, example))
        job = Job(
            recipe=recipe,
            model=dense,
            space=space,
            example=example.cpu(),
            data=data,
            budget=budget,
            run=run,
            work=folder / "work" / f"run-{run.id}",
            progress=progress,
            device=device,
        )
        if run.finished and (small := _finished_network(job)) is not None:
            return _result(job, small.to(place))
        with run:
            small = _phases(job, criterion, strategy)
        shutil.rmtree(job.work, ignore_errors=True)
        with contextlib.suppress(OSError):  # another run of this folder is not finished
            job.work.parent.rmdir()
        return _result(job, small.to(place))


def _key(
    recipe: PruneRecipe, model: nn.Module, space: Space, data: Data, example: Tensor
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
        kind="prune",
        recipe={**decisive, "trace": {**traced, "example": list(example.shape)}},
        seed=recipe.seed,
        fingerprint=space.fingerprint,
        weights_hash=weights_hash(model),
        data_fingerprint=content_hash({part: described[part] for part in parts}),
    )


def _phases(job: Job, criterion: Criterion | None, strategy: Strategy | None) -> nn.Module:
    """All phases in order; the pruned network."""
    recipe, run = job.recipe, job.run
    _describe(job)
    workshop = Workshop(job, criterion)
    workshop.prepare()
    chosen = strategy or create_strategy(recipe.search, workshop.tables)
    tools = workshop.tools()
    candidates = search(job, chosen, tools)
    compared = controls(job, tools)
    stronger = recipe.finalists.recovery or recipe.recovery
    found = choose_winner(
        job,
        candidates,
        compared,
        lambda widths, method: workshop.make(widths, method, stronger),
        workshop.exact_judge(),
        images_forward(stronger, len(job.data.calibration_indices)),
    )
    verification = verify_cut(job, found[RANDOM].selection)
    labels = _labels(job)
    trained = fine_tune(job, found, labels)
    final_numbers(job, _entrants(job, workshop, found, trained, labels, stronger))
    small = trained.get(RANDOM, found[RANDOM].network)
    notes = [c.error for c in compared.values() if c.status == "failed"]
    notes += [] if verification.passed else [verification.message]
    if notes:
        run.write(Notes(tuple(notes)))
    _save(job, small)
    return in_mode(small)


def _describe(job: Job) -> None:
    """Record what is pruned, on which images, under which budget; write the recipe."""
    recipe, data = job.recipe, job.data
    spec = _named(recipe)
    sizes = data.describe()
    images = {part: sizes[f"{part}_images"] for part in ("fit", "calibration", "search", "test")}
    limits = (recipe.search.min_keep, recipe.search.round_to)
    with job.run.transaction():
        job.run.write(
            ModelInfo(
                title=spec.rpartition(":")[2] or job.space.model,
                name=spec,
                weights=Path(recipe.model.weights).name if recipe.model else "",
                data=data.name,
                classes=data.num_classes,
                input_shape=data.image_shape,
                images=images,
            )
        )
        job.run.write(
            SpaceInfo.from_space(job.space, reachable(job.space, job.budget.metric, *limits))
        )
        job.run.write(BudgetInfo(job.budget.metric, job.budget.ratio, job.budget.tolerance))
        name = _numbered(job.run, "recipe.toml")
        complete = bool(_named(recipe)) and recipe.data is not None
        command = f"randprune prune --recipe {name}" if complete else ""
        job.run.write(Reproduce(command, recipe.to_toml(), name))
    recipe.save(job.run.store.folder / name)


def _named(recipe: PruneRecipe) -> str:
    """The network's name for `build_model`; "" where it was given as an object."""
    spec = recipe.model.spec if recipe.model else ""
    return "" if spec.startswith(CUSTOM) else spec


def _labels(job: Job) -> dict[str, str]:
    """What people call the networks, by method."""
    strategy = job.recipe.search.strategy
    return {
        RANDOM: "best random" if strategy == "random" else f"best of {strategy}",
        UNIFORM: "uniform",
        RANDOM_CHANNELS: "random channels",
    }


def _entrants(
    job: Job,
    workshop: Workshop,
    found: dict[str, Finalist],
    trained: dict[str, nn.Module],
    labels: dict[str, str],
    recovery: str,
) -> list[Entrant]:
    """Every network of the comparison at every stage, dense first."""
    accuracy = workshop.dense_accuracy()
    rows = [
        entrant(job, job.model, role=DENSE, label=DENSE, stage="dense", search=accuracy, timed=True)
    ]
    for method, finalist in found.items():
        common: dict[str, Any] = {
            "role": method,
            "label": labels[method],
            "widths": finalist.candidate.widths,
            "candidate": finalist.candidate.index,
        }
        bare = workshop.make(finalist.selection.widths, method, "none").network
        rows.append(entrant(job, bare, stage="cut", **common))
        rows.append(
            entrant(
                job,
                finalist.network,
                stage="repaired",
                search=finalist.search,
                recovery=recovery,
                timed=True,
                **common,
            )
        )
        if method in trained:
            epochs = job.recipe.finetune.epochs if job.recipe.finetune else 0
            rows.append(
                entrant(
                    job,
                    trained[method],
                    stage="finetuned",
                    recovery=recovery,
                    epochs=epochs,
                    timed=True,
                    **common,
                )
            )
    return rows


def _numbered(run: Run, name: str) -> str:
    """`name` for the first run in a folder, "name-2" for the second, ..."""
    stem, _, suffix = name.rpartition(".")
    return name if run.id == 1 else f"{stem}-{run.id}.{suffix}"


def _save(job: Job, small: nn.Module) -> None:
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
            "budget": {"metric": job.budget.metric, "ratio": job.budget.ratio},
        },
    )
    content = path.read_bytes()
    job.run.write(ArtifactInfo(name, len(content), hashlib.sha256(content).hexdigest()))


def _finished_network(job: Job) -> nn.Module | None:
    """The network of a finished run; None where its file is gone or is not the recorded one."""
    info = job.run.read(ArtifactInfo)
    if info is None:
        return None
    path = job.run.store.folder / info.file
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != info.sha256:
            return None
        return load(path, model=job.model)
    except (OSError, ArtifactError):
        return None


def _result(job: Job, small: nn.Module) -> PruneResult:
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
        budget=job.budget,
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
