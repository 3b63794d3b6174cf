"""The main job: a pre-trained network in, a smaller, repaired, verified, fine-tuned one out.

Each step looks into the records and the work folder for what an earlier process has done, so that
the same call after `kill -9` continues where that one stopped and ends with the same network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from randprune.criteria import Criterion, criteria
from randprune.evaluate.threads import decide, using
from randprune.graph.program import Inputs, in_mode, private_copy
from randprune.jobs.candidates import Repaired
from randprune.jobs.controls import uniform_controls
from randprune.jobs.finalists import Finalist, choose_winner, verify_cut
from randprune.jobs.fine_tune import fine_tune
from randprune.jobs.identity import describe, run_key
from randprune.jobs.measure import Entrant, entrant, measure
from randprune.jobs.opening import check_outputs, example_of, open_trained
from randprune.jobs.outcome import finished_network, result_of, save_network
from randprune.jobs.progress import Progress, phase
from randprune.jobs.result import PruneResult
from randprune.jobs.search import create_strategy, search_candidates
from randprune.jobs.seeds import Seeds
from randprune.jobs.session import Session
from randprune.jobs.trainer import Trainer
from randprune.jobs.work_folder import WorkFolder
from randprune.provenance import portable
from randprune.recipe import PruneRecipe
from randprune.recovery import needs_moments, quick_form
from randprune.search import Strategy
from randprune.store import (
    DENSE,
    RANDOM_CHANNELS,
    SEARCHED,
    UNIFORM,
    NetworkRow,
    Notes,
    SearchInfo,
    Store,
)
from randprune.tasks import Task
from randprune.zoo.data import Data
from randprune.zoo.splits import is_split


def prune_network(
    recipe: PruneRecipe,
    model: nn.Module,
    data: Data,
    folder: Path,
    progress: Progress,
    *,
    example: Inputs | None = None,
    task: Task | None = None,
    criterion: Criterion | None = None,
    strategy: Strategy | None = None,
    trainer: Trainer | None = None,
    device: str | None = None,
) -> PruneResult:
    """Do the whole job that a recipe describes, or what is left of it.

    Args:
        recipe: what to do.
        model: the trained network; left bit-identical.
        data: the images; the test set is opened once, at the end.
        folder: for records, recipe and the pruned network.
        progress: is told how far the job is.
        example: what the network is traced with; default: one sample of the data.
        task: what the network is for; default: classification.
        criterion, strategy: objects, instead of those that the recipe names.
        trainer: the caller's own, instead of the recipe's fine-tuning.
        device: where networks are evaluated and trained; default: the GPU if there is one.
    """
    with Store.open(folder) as store:
        # Trace the network into channel groups.
        place = next((p.device for p in model.parameters()), torch.device("cpu"))
        dense = model if place.type == "cpu" else private_copy(model).cpu()
        with phase(progress, "trace", "Tracing the network"):
            example = example_of(data, dense) if example is None else example
            check_outputs(dense, data, example)
            session = open_trained(
                recipe,
                dense,
                data,
                rules=recipe.search,
                seeds=Seeds(str(recipe.seed)),
                work=folder / "work",
                example=example,
                task=task,
            )
        run = store.run(run_key(recipe, session))
        session.work = WorkFolder(folder / "work" / f"run-{run.id}")
        session.ledger, session.progress, session.device = run, progress, device
        if (known := finished_network(run, dense)) is not None:
            return result_of(recipe, session, run, known.to(place))

        with run, using(decide(run.threads).count):
            describe(recipe, session, run, "recipe.toml", "randprune prune --recipe")
            scores = prepared_scores(session, recipe, criterion)

            # Search: every candidate is cut by the criterion's scores, and quickly repaired.
            quick = repairing(session, scores, quick_form(recipe.recovery))
            strategy = strategy or create_strategy(recipe.search, session.tables)
            info = SearchInfo(recipe.search.candidates, "", recipe.criterion, recipe.recovery)
            candidates = search_candidates(session, run, info, strategy, quick[SEARCHED])
            controls = uniform_controls(session, run, quick)

            # Finalists are repaired as well as can be; the best one wins, and is proved exact.
            recovery = recipe.finalists.recovery or recipe.recovery
            thorough = repairing(session, scores, recovery)
            count = recipe.finalists.count
            found = choose_winner(session, run, candidates, controls, thorough, count)
            verification = verify_cut(session, run, found[SEARCHED].selection)

            # Fine-tune the winner; measure all networks, at all stages, on the test set.
            labels = labels_of(recipe.search.strategy)
            tuned = fine_tune(session, recipe.finetune, found, labels, trainer)
            cut_only = repairing(session, scores, "none")
            entrants = [_dense(session)]
            for method, finalist in found.items():
                bare = cut_only[method].make(finalist.selection.widths).network
                entrants += _stages(session, recipe, finalist, bare, tuned.get(method))
            measure(session, run, entrants, recipe.output.latency_seconds)

            # Save the winner, and what a reader must know of it.
            failed = [c.error for c in controls.values() if c.status == "failed"]
            failed += [] if verification.passed else [verification.message]
            if notes := failed + ([] if session.task.needs_targets else [NO_TARGETS]):
                run.write(Notes(tuple(map(portable, notes))))
            small = in_mode(tuned.get(SEARCHED, found[SEARCHED].network))
            save_network(recipe, session, run, small)
        session.work.remove()
        return result_of(recipe, session, run, small.to(place))


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
        running.step(dense_accuracy=session.dense_result().share, **_chance(session))
    with session.phase("calibrate", "Collecting statistics", total=2) as running:
        if any(needs_moments(name) for name in (recipe.recovery, recipe.finalists.recovery)):
            session.moments()
        running.step()
        ours = session.scores(criterion or criteria.create(recipe.criterion))
        random = session.random_scores("random_channels")
        running.step()
    return {SEARCHED: ours, UNIFORM: ours, RANDOM_CHANNELS: random}


def repairing(
    session: Session, scores: Mapping[str, Sequence[Tensor]], recovery: str
) -> dict[str, Repaired]:
    """The makers of networks that are repaired in this way, by method."""
    return {method: Repaired(session, found, recovery) for method, found in scores.items()}


def labels_of(strategy: str) -> dict[str, str]:
    """What people call the networks, by method."""
    return {
        SEARCHED: "best random" if strategy == "random" else f"best of {strategy}",
        UNIFORM: "uniform",
        RANDOM_CHANNELS: "random channels",
    }


def _chance(session: Session) -> dict[str, float]:
    """The accuracy of always naming the commonest class, where there are classes."""
    images = session.search_images
    if not is_split(images):
        return {}
    return {"chance_accuracy": images.labels.bincount().max().item() / len(images)}


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
    cut = NetworkRow(
        label, candidate.method, "cut", widths=candidate.widths, candidate=candidate.index
    )
    yield entrant(session, bare, cut)
    recovery = recipe.finalists.recovery or recipe.recovery
    repaired = replace(cut, stage="repaired", recovery=recovery)
    shown = replace(repaired, search=finalist.search)
    yield entrant(session, finalist.network, shown, timed=True)
    if tuned is not None:
        section = recipe.finetune
        known = section is not None and not section.trainer
        epochs = section.epochs if section is not None and known else None
        trained = replace(repaired, stage="finetuned", epochs=epochs)
        yield entrant(session, tuned, trained, timed=True)
