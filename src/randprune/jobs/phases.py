"""The main job: a pre-trained network in, a smaller, repaired, verified, fine-tuned one out.

Phases: trace, dense reference, calibration, search, controls, finalists, verification, fine-tuning,
latency, test. Each of them looks into the records for what an earlier process has done, so that the
same call after `kill -9` continues where that one stopped and ends with the same network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from randprune.criteria import Criterion
from randprune.graph.program import in_mode, private_copy
from randprune.graph.trace import trace
from randprune.jobs.final import Entrant, entrant, final_numbers
from randprune.jobs.finalists import Finalist, choose_winner, verify_cut
from randprune.jobs.finetune import fine_tune
from randprune.jobs.job import Job
from randprune.jobs.outcome import (
    complete,
    describe,
    images_of,
    run_key,
    save_network,
)
from randprune.jobs.outputs import check_outputs
from randprune.jobs.progress import Progress, phase
from randprune.jobs.result import PruneResult
from randprune.jobs.search import controls, create_strategy, search
from randprune.jobs.workshop import Workshop
from randprune.recipe import PruneRecipe
from randprune.recovery import images_forward
from randprune.search import Strategy, reachable
from randprune.search.feasible import require_reachable
from randprune.store import (
    DENSE,
    RANDOM_CHANNELS,
    SEARCHED,
    UNIFORM,
    Notes,
    Store,
)
from randprune.zoo.data import Data


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
            check_outputs(dense, data, example.cpu())
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
        run = store.run(run_key(recipe, dense, space, data, example))
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
        return complete(job, dense, budget, lambda: _phases(job, criterion, strategy), place)


def _phases(job: Job, criterion: Criterion | None, strategy: Strategy | None) -> nn.Module:
    """All phases in order; the pruned network."""
    recipe, run = job.recipe, job.run
    limits = (recipe.search.min_keep, recipe.search.round_to)
    span = reachable(job.space, job.budget.metric, *limits)
    describe(job, job.space, job.budget, span, images_of(job.data))
    outcome = search_and_train(job, criterion, strategy)
    workshop, found, trained = outcome.workshop, outcome.found, outcome.trained
    final_numbers(job, _entrants(job, workshop, found, trained, _labels(job), outcome.recovery))
    small = outcome.network
    if outcome.notes:
        run.write(Notes(outcome.notes))
    save_network(job, job.budget, small)
    return in_mode(small)


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """What all phases but the final numbers give.

    Attributes:
        workshop: made the networks.
        found: the winner and the controls after the finalists' repair, by method.
        trained: those that were fine-tuned, by method.
        recovery: the finalists' repair.
        notes: what a reader must know.
    """

    workshop: Workshop
    found: dict[str, Finalist]
    trained: dict[str, nn.Module]
    recovery: str
    notes: tuple[str, ...] = ()

    @property
    def network(self) -> nn.Module:
        """The winner as it has come so far."""
        return self.trained.get(SEARCHED, self.found[SEARCHED].network)


def search_and_train(
    job: Job, criterion: Criterion | None = None, strategy: Strategy | None = None
) -> Searched:
    """All phases that need no test set: from calibration to fine-tuning."""
    recipe = job.recipe
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
    verification = verify_cut(job, found[SEARCHED].selection)
    notes = [c.error for c in compared.values() if c.status == "failed"]
    notes += [] if verification.passed else [verification.message]
    trained = fine_tune(job, found, _labels(job))
    return Searched(workshop, found, trained, stronger, tuple(notes))


def _labels(job: Job) -> dict[str, str]:
    """What people call the networks, by method."""
    strategy = job.recipe.search.strategy
    return {
        SEARCHED: "best random" if strategy == "random" else f"best of {strategy}",
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
