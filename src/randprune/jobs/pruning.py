"""The main job: a pre-trained network in, a smaller, repaired, verified, fine-tuned one out.

Each step looks into the records and the work folder for what an earlier process has done, so that
the same call after `kill -9` continues where that one stopped and ends with the same network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from randprune.criteria import Criterion, criteria
from randprune.graph.program import in_mode
from randprune.jobs.blocks import side_by_side
from randprune.jobs.candidates import Repaired
from randprune.jobs.controls import random_control, uniform_controls
from randprune.jobs.doubts import beaten, chance, near_chance
from randprune.jobs.finalists import Finalist, choose_winner, verify_cut
from randprune.jobs.fine_tune import fine_tune
from randprune.jobs.job import (
    Given,
    as_decided,
    at_work,
    begun,
    finished_network,
    result_of,
    save_network,
)
from randprune.jobs.measure import Entrant, entrant, measure
from randprune.jobs.progress import phase
from randprune.jobs.race import Race
from randprune.jobs.result import PruneResult
from randprune.jobs.search_loop import create_strategy, search_candidates
from randprune.jobs.session import Session
from randprune.jobs.traced import traced_session
from randprune.jobs.trainer import Trainer
from randprune.provenance import portable
from randprune.recipe import PruneRecipe
from randprune.recovery import needs_moments, quick_form
from randprune.store import (
    DENSE,
    RANDOM_CHANNELS,
    RANDOM_SEARCH,
    SEARCHED,
    UNIFORM,
    NetworkRow,
    Notes,
    Run,
    SearchInfo,
    Store,
)
from randprune.strategies import Strategy
from randprune.surgery import cut
from randprune.tasks import ACCURACY
from randprune.zoo.splits import is_split


def prune_network(
    recipe: PruneRecipe,
    given: Given,
    *,
    criterion: Criterion | None = None,
    strategy: Strategy | None = None,
) -> PruneResult:
    """Do the whole job that a recipe describes, or what is left of it.

    Args:
        recipe: what to do.
        given: the trained network, the images, and where results go.
        criterion, strategy: objects, instead of those that the recipe names.
    """
    with Store.open(given.folder) as store:
        # Trace the network into channel groups.
        with phase(given.progress, "trace", "Tracing the network"):
            session = traced_session(recipe, given)
        recipe = as_decided(recipe, session)
        run = begun(recipe, session, store, given)
        if (known := finished_network(run, session.network)) is not None:
            return result_of(recipe, session, run, known, given)

        with at_work(recipe, session, run):
            found = found_network(session, run, recipe, criterion, strategy, given.trainer)
            finish(session, run, recipe, found)
        return result_of(recipe, session, run, found.network, given)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a job has found before the test set is opened.

    Attributes:
        network: the winner, pruned, repaired and fine-tuned, in evaluation mode.
        entrants: all networks of the comparison, at all stages.
        notes: what a reader must know.
        opened: how often the test set had been opened by then.
    """

    network: nn.Module
    entrants: Sequence[Entrant]
    notes: Sequence[str]
    opened: int


def found_network(
    session: Session,
    run: Run,
    recipe: PruneRecipe,
    criterion: Criterion | None = None,
    strategy: Strategy | None = None,
    trainer: Trainer | None = None,
) -> Found:
    """The best network within the budget, and what it is set beside.

    Args:
        session: of the traced network.
        run: the job's records.
        recipe: what to do.
        criterion, strategy: objects, instead of those that the recipe names.
        trainer: the caller's own, instead of the recipe's fine-tuning.
    """
    scores = prepared_scores(session, recipe, criterion)

    # Search: every candidate is cut by the criterion's scores, and quickly repaired.
    repaired_by = quick_form(recipe.recovery)
    quick = repairing(session, scores, repaired_by)
    strategy = strategy or create_strategy(recipe.search, session.tables)
    info = SearchInfo(recipe.search.candidates, "", recipe.criterion, recipe.recovery)
    ranked_by = (criterion or criteria.create(recipe.criterion)).name
    with side_by_side(session, recipe, ranked_by, repaired_by) as others:
        candidates = search_candidates(
            session, run, info, strategy, quick[SEARCHED], racing(session, recipe), others
        )
        controls = uniform_controls(session, run, quick)
        if recipe.controls.random_search and recipe.search.strategy != "random":
            count, maker = recipe.search.candidates, quick[RANDOM_SEARCH]
            controls[RANDOM_SEARCH] = random_control(
                session, count, maker, racing(session, recipe), others
            )

    # Finalists are repaired as well as can be; the best one wins, and is proved exact.
    finalists = recipe.finalists
    recovery = finalists.recovery or recipe.recovery
    thorough = repairing(session, scores, recovery, finalists.swaps)
    notes = [] if session.task.needs_targets else [NO_TARGETS]
    if is_split(images := session.search_images):
        notes += near_chance(session.dense_result().share, chance(images.labels))
    found = choose_winner(session, run, candidates, controls, thorough, finalists.count, notes)
    verification = verify_cut(session, run, found[SEARCHED].selection)

    # Fine-tune the winner, and the controls where asked.
    labels = labels_of(recipe.search.strategy)
    tuned = fine_tune(session, recipe.finetune, found, labels, trainer)
    entrants = [_dense(session)]
    for method, finalist in found.items():
        bare = cut(session.network, session.space, finalist.selection)
        entrants += _stages(session, recipe, finalist, bare, tuned.get(method))
    notes += [c.error for c in controls.values() if c.status == "failed"]
    notes += [] if verification.passed else [verification.message]
    network = in_mode(tuned.get(SEARCHED, found[SEARCHED].network))
    return Found(network, entrants, notes, session.data.test_opened)


def finish(session: Session, run: Run, recipe: PruneRecipe, found: Found) -> None:
    """Measure all networks on the test set, save the winner, and what a reader must know of it."""
    measure(session, run, found.entrants, recipe.output.latency_seconds, found.opened)
    if notes := [*found.notes, *beaten(run.networks(), session.task.metric)]:
        run.write(Notes(tuple(map(portable, notes))))
    save_network(recipe, session, run, found.network)


NO_TARGETS = (
    "No targets were used: numbers say how far outputs are from those of the given network, not "
    "whether these are right."
)


def prepared_scores(
    session: Session, recipe: PruneRecipe, criterion: Criterion | None = None
) -> dict[str, Sequence[Tensor]]:
    """What ranks the channels, by method, after the dense network was looked at.

    Its outputs on the search images and its statistics on the calibration images are kept.
    """
    with session.phase("dense", "Evaluating the dense network") as running:
        _ = session.quick_judge
        images = session.search_images
        known = {"chance_accuracy": chance(images.labels)} if is_split(images) else {}
        found = session.dense_result().share
        name = "accuracy" if session.task.metric == ACCURACY else "value"
        running.step(**{f"dense_{name}": found}, **known)
    criterion = criterion or criteria.create(recipe.criterion)
    recoveries = (recipe.recovery, recipe.finalists.recovery)
    if "moments" in criterion.needs or any(map(needs_moments, recoveries)):
        session.moments()
    with session.phase("scores", "Scoring channels"):
        ours = session.scores(criterion)
        random = session.random_scores("random_channels")
    return {SEARCHED: ours, UNIFORM: ours, RANDOM_SEARCH: ours, RANDOM_CHANNELS: random}


def repairing(
    session: Session, scores: Mapping[str, Sequence[Tensor]], recovery: str, swaps: int = 0
) -> dict[str, Repaired]:
    """The makers of networks that are repaired in this way, by method; chance exchanges nothing."""
    return {
        method: Repaired(session, found, recovery, 0 if method == RANDOM_CHANNELS else swaps)
        for method, found in scores.items()
    }


def racing(session: Session, recipe: PruneRecipe) -> Race | None:
    """A race of a search's candidates for the places of the finalists, where one is asked for."""
    if not recipe.search.race:
        return None
    return Race(recipe.search.rank_by, len(session.ranking_images), recipe.finalists.count)


def labels_of(strategy: str) -> dict[str, str]:
    """What people call the networks, by method."""
    return {
        SEARCHED: "best random" if strategy == "random" else f"best of {strategy}",
        UNIFORM: "uniform",
        RANDOM_SEARCH: "best of random search",
        RANDOM_CHANNELS: "random channels",
    }


def _dense(session: Session) -> Entrant:
    """The dense network, with its accuracy on the search images."""
    row = NetworkRow(DENSE, DENSE, "dense", search=session.dense_result())
    return entrant(session, session.network, row, timed=True)


def _stages(
    session: Session,
    recipe: PruneRecipe,
    finalist: Finalist,
    bare: nn.Module,
    tuned: nn.Module | None,
) -> Iterator[Entrant]:
    """One network of the comparison at every stage: cut, repaired, and fine-tuned where it was."""
    candidate = finalist.candidate
    label = labels_of(recipe.search.strategy)[candidate.method]
    first = NetworkRow(
        label, candidate.method, "cut", widths=candidate.widths, candidate=candidate.index
    )
    yield entrant(session, bare, first)
    recovery = recipe.finalists.recovery or recipe.recovery
    repaired = replace(first, stage="repaired", recovery=recovery)
    shown = replace(repaired, search=finalist.search)
    yield entrant(session, finalist.network, shown, timed=True)
    if tuned is not None:
        section = recipe.finetune
        epochs = None if section is None or section.trainer else section.epochs
        trained = replace(repaired, stage="finetuned", epochs=epochs)
        yield entrant(session, tuned, trained, timed=True)
