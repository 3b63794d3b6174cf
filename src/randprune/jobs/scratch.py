"""Pruning from scratch: a search over widths without trained weights, and what it is worth.

Phases: trace and widen, shared weights, search, controls, final trainings, the pre-trained route,
verification, latency, test. As in the pre-trained setting, each phase looks into the records and
the job's folder for what an earlier process has done.

The wide network's space is the job's space: the original network is one of its configurations, and
all costs are counted there. Ratios that people read are relative to the original network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

from randprune.cost import Budget
from randprune.errors import InfeasibleBudgetError
from randprune.graph.program import in_mode, private_copy
from randprune.graph.trace import trace
from randprune.jobs.candidates import best_first
from randprune.jobs.final import final_numbers
from randprune.jobs.finalists import verify_cut
from randprune.jobs.job import Job
from randprune.jobs.outcome import (
    complete,
    describe,
    images_of,
    run_key,
    save_network,
)
from randprune.jobs.pretrained import pretrained_route
from randprune.jobs.progress import Progress, phase
from randprune.jobs.result import PruneResult
from randprune.jobs.scratch_trainings import FinalTrainings
from randprune.jobs.search import Tools, create_strategy, evaluate, search
from randprune.jobs.shared import SharedWeights
from randprune.jobs.widened import widened
from randprune.recipe import ScratchRecipe
from randprune.search import RandomSearch, Strategy, UniformSearch, reachable
from randprune.search.feasible import require_reachable
from randprune.space import IntArray
from randprune.store import (
    RANDOM_CONFIGURATION,
    SEARCH_TOP1,
    SEARCHED,
    STANDALONE,
    UNIFORM,
    Candidate,
    Notes,
    SharedWeightRanks,
    Store,
    Winner,
)
from randprune.supernet import first_channels, initialise
from randprune.widening import wide_budget, widening_of
from randprune.zoo.data import Data


def scratch_network(
    recipe: ScratchRecipe,
    model: nn.Module,
    data: Data,
    folder: Path,
    progress: Progress,
    *,
    example: Tensor | None = None,
    strategy: Strategy | None = None,
    device: str | None = None,
) -> PruneResult:
    """Do the whole job that a recipe describes, or what is left of it.

    Args:
        recipe: what to do.
        model: the original network; left bit-identical, its weights do not matter.
        data: the images; the test set is opened once, at the end.
        folder: for records, recipe and the network.
        progress: is told how far the job is.
        example: what the network is traced with; default: one image of the data.
        strategy: an object, instead of the one that the recipe names.
        device: where networks are evaluated and trained; default: the GPU if there is one.
    """
    with Store.open(folder) as store:
        place = next((p.device for p in model.parameters()), torch.device("cpu"))
        original = initialise(private_copy(model).cpu(), recipe.seed)
        if example is None:
            example = next(data.calibration.batches(1))[0]
        with phase(progress, "trace", "Tracing and widening the network"):
            asked = recipe.model
            freeze, allow = (asked.freeze, asked.allow) if asked else ((), ())
            space = trace(original, example.cpu(), freeze, allow=allow)
            wide = widened(original, space, recipe.widen, recipe.seed)
        step = widening_of(wide)
        budget = recipe.budget.budget()
        limit = wide_budget(step, budget)
        limits = recipe.search.min_keep, recipe.search.round_to
        require_reachable(step.wide, limit, *limits, whole=limit.ratio / budget.ratio)
        run = store.run(run_key(recipe, original, space, data, example))
        job = Job(
            recipe=recipe,
            model=wide,
            space=step.wide,
            example=example.cpu(),
            data=data,
            budget=limit,
            run=run,
            work=folder / "work" / f"run-{run.id}",
            progress=progress,
            device=device,
        )
        return complete(
            job, original, budget, lambda: _phases(job, original, budget, strategy), place
        )


def _phases(
    job: Job[ScratchRecipe], original: nn.Module, budget: Budget, strategy: Strategy | None
) -> nn.Module:
    """All phases in order; the trained network."""
    recipe, step = job.recipe, widening_of(job.model)
    low, high = reachable(
        job.space, job.budget.metric, recipe.search.min_keep, recipe.search.round_to
    )
    share = budget.ratio / job.budget.ratio
    describe(job, step.space, budget, (low * share, high * share), images_of(job.data))
    shared = SharedWeights(job, original)
    tools = shared.tools()
    chosen = strategy or create_strategy(recipe.search, list)
    candidates = search(job, chosen, tools)
    ranked = best_first(candidates, recipe.search.rank_by)
    job.run.write(Winner(ranked[0].index, SEARCHED, (ranked[0].index,)))
    compared, notes = _controls(job, tools)
    notes = [f"Group {name} keeps its width: {why}" for name, why in step.stayed.items()] + notes
    trainings = FinalTrainings(job, original)
    trained = trainings.run([ranked[0], *compared, *_spread(job, ranked)])
    if recipe.controls.pretrained:
        trained += pretrained_route(job, original, budget)
    selection = first_channels(job.space, np.array(ranked[0].widths))
    verification = verify_cut(job, selection)
    notes += [] if verification.passed else [verification.message]
    final_numbers(job, trained)
    notes += _ranks(job, [ranked[0], *compared, *candidates])
    if notes:
        job.run.write(Notes(tuple(notes)))
    network = next(e.network for e in trained if e.row.role == SEARCHED)
    save_network(job, budget, network)
    return in_mode(network)


def _controls(job: Job[ScratchRecipe], tools: Tools) -> tuple[list[Candidate], list[str]]:
    """The controls that have widths of their own, evaluated with shared weights; and remarks."""
    recipe, step = job.recipe, widening_of(job.model)
    grid = (recipe.search.min_keep, recipe.search.round_to)
    rows: list[tuple[str, int, IntArray]] = []
    notes: list[str] = []
    if recipe.controls.uniform:
        try:
            # Of the original network: the same share of every layer's channels.
            uniform = UniformSearch(round_to=recipe.search.round_to)
            budget = recipe.budget.budget()
            rows.append((UNIFORM, 0, uniform.ask(step.space, budget, 1, job.rng(UNIFORM))[0]))
        except InfeasibleBudgetError as error:
            notes.append(f"No uniform widths: {error}")
    if recipe.controls.random:
        rng = job.rng(RANDOM_CONFIGURATION)
        drawn = RandomSearch(*grid).ask(job.space, job.budget, recipe.training.seeds, rng)
        rows += [(RANDOM_CONFIGURATION, k, widths) for k, widths in enumerate(drawn)]
    known = [job.run.candidate(k, method) for method, k, _ in rows]
    found: list[Candidate] = []
    with job.phase(
        "controls", "Controls", total=len(rows), done=sum(c is not None for c in known)
    ) as running:
        for (method, k, widths), recorded in zip(rows, known, strict=True):
            found.append(recorded or evaluate(job, tools, widths, k, method))
            if recorded is None:
                running.step()
    return [c for c in found if c.status == "ok"], notes


def _spread(job: Job[ScratchRecipe], ranked: Sequence[Candidate]) -> list[Candidate]:
    """Candidates at even distances of the ranking, the best one excepted."""
    count = min(job.recipe.training.standalone, len(ranked) - 1)
    places = np.linspace(1, len(ranked) - 1, count).round().astype(int).tolist()
    return [replace(ranked[i], method=STANDALONE) for i in dict.fromkeys(places)]


def _ranks(job: Job[ScratchRecipe], candidates: Sequence[Candidate]) -> list[str]:
    """Record how shared weights rank the networks that were also trained alone."""
    shares: dict[tuple[int, ...], list[float]] = {}
    for row in job.run.networks():
        if row.role in (SEARCHED, UNIFORM, RANDOM_CONFIGURATION, STANDALONE) and row.test:
            shares.setdefault(row.widths, []).append(row.test.share)
    shared = {c.widths: c.scores[SEARCH_TOP1] for c in candidates if SEARCH_TOP1 in c.scores}
    both = [widths for widths in shares if widths in shared]
    if len(both) < 3:
        return []
    ours, alone = [shared[w] for w in both], [float(np.mean(shares[w])) for w in both]
    tau = float(kendalltau(ours, alone).statistic)
    if not np.isfinite(tau):
        return []
    job.run.write(SharedWeightRanks(len(both), tau, tuple(ours), tuple(alone)))
    return [
        "Rank correlation between accuracy with shared weights and after training alone: "
        f"Kendall's tau {tau:.2f} over {len(both)} networks."
    ]
