"""From candidates to a winner: the best few are repaired with more effort and judged in float32."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from randprune.errors import DataError, RandpruneError, StorageError, VerificationError
from randprune.jobs.candidates import FINALIST, Made, choose_finalists, scores_of, value_of
from randprune.jobs.job import Job
from randprune.jobs.judge import Judge, rank
from randprune.lineage import plan_of
from randprune.space import IntArray, Selection
from randprune.store import FINALIST_TOP1, SEARCHED, Accuracy, Candidate, Verification, Winner
from randprune.surgery import cut, verify

TOLERANCE = 1e-4

Make = Callable[[IntArray, str], Made]
"""Widths and method -> the finalist's network."""


@dataclass(frozen=True, slots=True, eq=False)
class Finalist:
    """A candidate after the stronger repair; `search` is its float32 accuracy on search images."""

    candidate: Candidate
    selection: Selection
    network: nn.Module
    search: Accuracy


def choose_winner(
    job: Job,
    candidates: Sequence[Candidate],
    controls: Mapping[str, Candidate],
    make: Make,
    judge: Judge,
    images_forward: int,
) -> dict[str, Finalist]:
    """The winner (as "searched") and the controls, by method, after the finalists' repair.

    The controls get the same repair, so that what is compared at the end differs in the
    configuration and the channels alone.

    Args:
        job: the job.
        candidates: of the search.
        controls: the other rows of the comparison, by method; failed ones are left out.
        make: repairs a finalist.
        judge: of the search images, in float32.
        images_forward: images that one repair sends through the finalist.

    Raises:
        DataError: no candidate, or no finalist, could be made.
    """
    rank_by = job.recipe.search.rank_by
    chosen = choose_finalists(candidates, rank_by, job.recipe.finalists.count)
    every = [*chosen, *(c for c in controls.values() if c.status == "ok")]
    done = sum(FINALIST_TOP1 in c.scores for c in every)
    judged: list[Candidate] = []
    with job.phase("finalists", "Repairing finalists", total=len(every), done=done) as running:
        for candidate in every:
            known = FINALIST_TOP1 in candidate.scores
            judged.append(
                candidate if known else _judge(job, candidate, make, judge, images_forward)
            )
            if not known:
                running.step(top1=judged[-1].scores.get(FINALIST_TOP1, 0.0))
    contenders = judged[: len(chosen)]
    best = contenders[rank([value_of(c, rank_by, FINALIST) for c in contenders])[0]]
    if FINALIST_TOP1 not in best.scores:
        raise DataError(f"None of {len(chosen)} finalists could be repaired: {best.error}")
    job.run.write(Winner(best.index, SEARCHED, tuple(c.index for c in contenders)))
    return {
        c.method: _finalist(job, c, make, len(judge.evaluator.split))
        for c in [best, *judged[len(chosen) :]]
        if FINALIST_TOP1 in c.scores
    }


def _judge(
    job: Job, candidate: Candidate, make: Make, judge: Judge, images_forward: int
) -> Candidate:
    """Repair, evaluate and record one finalist; a failure is noted and it cannot win."""
    start = time.perf_counter()
    try:
        network = _network(job, candidate, make)
        quality = judge.quality(network, f"finalist {candidate.method}/{candidate.index}")
    except (StorageError, MemoryError):
        raise
    except (RandpruneError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        failed = replace(candidate, error=f"As finalist: {type(error).__name__}: {error}")
        job.run.record_candidate(failed)
        return failed
    seconds = time.perf_counter() - start
    scores = {**candidate.scores, **scores_of(quality, FINALIST)}
    judged = replace(candidate, scores=scores)
    entry = job.entry(
        "finalists",
        f"finalist/{candidate.method}/{candidate.index}",
        seconds=seconds,
        forward={candidate.costs["macs"]: quality.images + images_forward},
    )
    job.run.record_candidate(judged, [entry])
    return judged


def _network(job: Job, candidate: Candidate, make: Make) -> nn.Module:
    widths = job.space.check_widths(candidate.widths)
    name = f"finalist-{candidate.method}-{candidate.index}"
    return job.kept.network(name, job.model, lambda: make(widths, candidate.method).network)


def _finalist(job: Job, candidate: Candidate, make: Make, images: int) -> Finalist:
    network = _network(job, candidate, make)
    plan = plan_of(network)
    assert plan is not None
    correct = round(candidate.scores[FINALIST_TOP1] * images)
    return Finalist(candidate, plan.selection, network, Accuracy(correct, images))


def verify_cut(job: Job[Any], selection: Selection) -> Verification:
    """Prove, and record, that the cut computes what the masked dense network computes.

    Raises:
        VerificationError: it does not, and no inexact operation was allowed.
    """
    if (known := job.run.read(Verification)) is not None and known.passed:
        return known
    with job.phase("verify", "Verifying the cut"):
        small = cut(job.model, job.space, selection)
        try:
            error = verify(job.model, small, job.space, selection, job.example, tolerance=TOLERANCE)
        except VerificationError as problem:
            allowed = ", ".join(job.space.inexact)
            message = f"Not exact, as allowed ({allowed}). " if allowed else ""
            result = Verification(False, None, TOLERANCE, f"{message}{problem}")
            job.run.write(result)
            if not allowed:
                raise
            return result
        result = Verification(True, error, TOLERANCE)
        job.run.write(result)
    return result
