"""Pruning from scratch: a search over widths without trained weights, and what it is worth.

As in the main job, each step looks into the records and the work folder for what an earlier process
has done.

The widened network's space is the job's space: the original network is one of its configurations,
and all costs are counted there. Ratios that people read are relative to the original network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import kendalltau

from randprune.graph.program import in_mode, private_copy
from randprune.jobs.candidates import Maker
from randprune.jobs.controls import scratch_controls
from randprune.jobs.doubts import beaten
from randprune.jobs.final_trainings import train_all
from randprune.jobs.finalists import verify_cut
from randprune.jobs.job import (
    Given,
    as_decided,
    at_work,
    begun,
    finished_network,
    result_of,
    save_network,
)
from randprune.jobs.measure import measure
from randprune.jobs.on_time import OnTime, latency_of
from randprune.jobs.opening import open_widened
from randprune.jobs.pretrained_route import pretrained_route
from randprune.jobs.progress import phase
from randprune.jobs.ranking import best_first
from randprune.jobs.result import PruneResult
from randprune.jobs.search_loop import create_strategy, search_candidates
from randprune.jobs.seeds import Seeds
from randprune.jobs.session import Session
from randprune.jobs.shared_weights import train_shared
from randprune.provenance import portable
from randprune.recipe import ScratchRecipe
from randprune.store import (
    RANDOM_CONFIGURATION,
    SEARCH_TOP1,
    SEARCHED,
    STANDALONE,
    UNIFORM,
    Candidate,
    Notes,
    Run,
    SearchInfo,
    SharedWeightRanks,
    Store,
    Winner,
)
from randprune.strategies import Strategy
from randprune.supernet import first_channels, initialise
from randprune.widening import widening_of

# So many of the best candidates are timed at most, where the budget is one of latency.
_MEASURED = 5


def scratch_network(
    recipe: ScratchRecipe, given: Given, *, strategy: Strategy | None = None
) -> PruneResult:
    """Do the whole job that a recipe describes, or what is left of it.

    Args:
        recipe: what to do.
        given: the original network, whose weights do not matter, the images, and where results go.
        strategy: an object, instead of the one that the recipe names.
    """
    with Store.open(given.folder) as store:
        # Trace the network, and widen it as far as a configuration may go.
        with phase(given.progress, "trace", "Tracing and widening the network"):
            original = initialise(private_copy(given.model).cpu(), recipe.seed)
            session = open_widened(
                recipe,
                recipe.widen,
                original,
                given.data,
                wide_seed=recipe.seed,
                rules=recipe.search,
                seeds=Seeds(str(recipe.seed)),
                work=given.folder / "work",
                example=given.example,
            )
        recipe = as_decided(recipe, session)
        run = begun(recipe, session, store, given)
        if (known := finished_network(run, original)) is not None:
            return result_of(recipe, session, run, known, given)

        with at_work(recipe, session, run):
            # Train shared weights; every candidate of the search is a slice of them.
            slices = train_shared(session, recipe.supernet)
            strategy = strategy or create_strategy(recipe.search, list)
            info = SearchInfo(recipe.search.candidates, "", "shared weights", "bn")
            candidates = search_candidates(session, run, info, strategy, slices)
            ranked = best_first(candidates, recipe.search.rank_by)
            winner, timing_notes = _on_time(session, ranked, slices)
            run.write(Winner(winner.index, SEARCHED, (winner.index,)))
            controls = scratch_controls(recipe, session, run, slices)

            # Train the winner and what it is set beside, from random weights.
            compared = [winner, *controls.candidates]
            alone = _spread(ranked, recipe.training.standalone)
            entrants = train_all(session, recipe, [*compared, *alone])
            if recipe.controls.pretrained:
                entrants += pretrained_route(session, run, recipe)

            # Prove the cut; measure all networks on the test set.
            selection = first_channels(session.space, np.array(winner.widths))
            verification = verify_cut(session, run, selection)
            opened = session.data.test_opened
            measure(session, run, entrants, recipe.output.latency_seconds, opened)

            # Save the winner, and what a reader must know of it.
            stayed = widening_of(session.network).stayed.items()
            notes = [f"Group {name} keeps its width: {why}" for name, why in stayed]
            notes += [*timing_notes, *controls.notes]
            notes += [] if verification.passed else [verification.message]
            notes += _ranks(run, [*compared, *candidates])
            notes += beaten(run.networks())
            if notes:
                run.write(Notes(tuple(map(portable, notes))))
            network = in_mode(next(e.network for e in entrants if e.row.role == SEARCHED))
            save_network(recipe, session, run, network)
        return result_of(recipe, session, run, network, given)


def _on_time(
    session: Session, ranked: Sequence[Candidate], maker: Maker
) -> tuple[Candidate, list[str]]:
    """The best candidate that keeps the budget, by measurement where it is one of latency."""
    cost = latency_of(session)
    if cost is None:
        return ranked[0], []
    on_time = OnTime(session, cost)
    best = on_time.first(ranked[:_MEASURED], lambda c: maker.make(np.array(c.widths)).network.cpu())
    return best, [*cost.notes, *on_time.notes]


def _spread(ranked: Sequence[Candidate], standalone: int) -> list[Candidate]:
    """Candidates at even distances of the ranking, the best one excepted."""
    count = min(standalone, len(ranked) - 1)
    places = np.linspace(1, len(ranked) - 1, count).round().astype(int).tolist()
    return [replace(ranked[i], method=STANDALONE) for i in dict.fromkeys(places)]


def _ranks(run: Run, candidates: Sequence[Candidate]) -> list[str]:
    """Record how shared weights rank the networks that were also trained alone."""
    shares: dict[tuple[int, ...], list[float]] = {}
    for row in run.networks():
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
    run.write(SharedWeightRanks(len(both), tau, tuple(ours), tuple(alone)))
    return [
        "Rank correlation between accuracy with shared weights and after training alone: "
        f"Kendall's tau {tau:.2f} over {len(both)} networks."
    ]
