"""From candidates to a winner: the best few are repaired with more effort and judged in float32."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from randprune.errors import DataError, RandpruneError, StorageError, VerificationError
from randprune.jobs.candidates import Repaired
from randprune.jobs.ledger import cost_entry
from randprune.jobs.on_time import OnTime, latency_of
from randprune.jobs.ranking import FINALIST, choose_finalists, rank, scores_of, value_of
from randprune.jobs.session import Session
from randprune.lineage import selection_of
from randprune.recovery import Passes
from randprune.space import Selection
from randprune.store import FINALIST_TOP1, SEARCHED, Candidate, Result, Run, Verification, Winner
from randprune.surgery import cut, verify

TOLERANCE = 1e-4
"""The largest relative difference between a cut network and the masked dense one."""


@dataclass(frozen=True, slots=True, eq=False)
class Finalist:
    """A candidate after the stronger repair; `search` is its float32 result on search images."""

    candidate: Candidate
    selection: Selection
    network: nn.Module
    search: Result


def choose_winner(
    session: Session,
    run: Run,
    candidates: Sequence[Candidate],
    controls: Mapping[str, Candidate],
    makers: Mapping[str, Repaired],
    count: int,
    notes: list[str],
) -> dict[str, Finalist]:
    """The winner (as "searched") and the controls, by method, after the finalists' repair.

    The controls get the same repair, so that what is compared at the end differs in the
    configuration and the channels alone. A candidate of the same widths and channels as a control
    joins the finalists, since it is repaired in any case: the winner is not worse than that control
    by what ranks.

    Args:
        session: of the job.
        run: its records.
        candidates: of the search.
        controls: the other rows of the comparison, by method; failed ones are left out.
        makers: repair finalists, by method.
        count: how many of the candidates become finalists.
        notes: what a reader must know of the choice is appended.

    Raises:
        DataError: no candidate, or no finalist, could be made.
    """
    rank_by = session.rules.rank_by
    sound = [c for c in controls.values() if c.status == "ok"]
    chosen = choose_finalists(candidates, rank_by, count)
    twins = {c.method: same for c in sound if (same := _twin(c, candidates)) is not None}
    chosen += [c for c in twins.values() if c.index not in {other.index for other in chosen}]
    every = [*chosen, *sound]
    done = sum(FINALIST_TOP1 in c.scores for c in every)
    judged: list[Candidate] = []
    with session.phase(
        "finalists", "Repairing finalists and controls", total=len(every), done=done
    ) as running:
        for candidate in every:
            if FINALIST_TOP1 in candidate.scores:
                judged.append(candidate)
                continue
            if (twin := twins.get(candidate.method)) is not None:
                same = next(c for c in judged if c.index == twin.index)
                judged.append(replace(candidate, scores=same.scores, error=same.error))
                session.ledger.record_candidate(judged[-1])
            else:
                judged.append(_judge(session, candidate, makers[candidate.method]))
            running.step(top1=judged[-1].scores.get(FINALIST_TOP1, 0.0))
    contenders = judged[: len(chosen)]
    order = rank([value_of(c, rank_by, FINALIST) for c in contenders])
    ranked = [contenders[i] for i in order]
    best = ranked[0]
    if FINALIST_TOP1 not in best.scores:
        raise DataError(f"None of {len(chosen)} finalists could be repaired: {best.error}")
    if (cost := latency_of(session)) is not None:
        on_time = OnTime(session, cost)
        able = [c for c in ranked if FINALIST_TOP1 in c.scores]
        best = on_time.first(able, lambda c: _network(session, c, makers[c.method]))
        notes += [*cost.notes, *on_time.notes]
    run.write(Winner(best.index, SEARCHED, tuple(c.index for c in contenders)))
    return {
        c.method: _finalist(session, c, twins.get(c.method, c), makers)
        for c in [best, *judged[len(chosen) :]]
        if FINALIST_TOP1 in c.scores
    }


def _twin(control: Candidate, candidates: Sequence[Candidate]) -> Candidate | None:
    """The first candidate that is the same network as a control."""
    return next(
        (
            c
            for c in candidates
            if c.status == "ok" and (c.widths, c.selection) == (control.widths, control.selection)
        ),
        None,
    )


def _judge(session: Session, candidate: Candidate, maker: Repaired) -> Candidate:
    """Repair, evaluate and record one finalist; a failure is noted and it cannot win."""
    start = time.perf_counter()
    name = f"finalist {candidate.method}/{candidate.index}"
    try:
        quality = session.exact_judge.quality(_network(session, candidate, maker), name)
    except (StorageError, MemoryError):
        raise
    except (RandpruneError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        failed = replace(candidate, error=f"As finalist: {type(error).__name__}: {error}")
        session.ledger.record_candidate(failed)
        return failed
    judged = replace(candidate, scores={**candidate.scores, **scores_of(quality, FINALIST)})
    seen = Passes(quality.samples) + maker.passes
    entry = cost_entry(
        "finalists",
        name.replace(" ", "/"),
        seconds=time.perf_counter() - start,
        device=session.device,
        forward={candidate.costs["macs"]: seen.forward},
        backward={candidate.costs["macs"]: seen.backward},
    )
    session.ledger.record_candidate(judged, [entry])
    return judged


def _network(session: Session, candidate: Candidate, maker: Repaired) -> nn.Module:
    """The repaired finalist, or the one that an earlier process has kept."""
    name = f"finalist-{candidate.method}-{candidate.index}"
    found = session.made.network(name, session.original.network)
    if found is not None:
        return found
    made = maker.make(session.space.check_widths(candidate.widths)).network
    return session.made.keep_network(name, made)


def _finalist(
    session: Session, candidate: Candidate, made: Candidate, makers: Mapping[str, Repaired]
) -> Finalist:
    """The finalist of a candidate whose network was made as that of `made`."""
    network = _network(session, made, makers[made.method])
    search = session.result(candidate.scores[FINALIST_TOP1], len(session.search_images))
    return Finalist(candidate, selection_of(network), network, search)


def verify_cut(session: Session, run: Run, selection: Selection) -> Verification:
    """Prove, and record, that the cut computes what the masked dense network computes.

    Raises:
        VerificationError: it does not, and no inexact operation was allowed.
    """
    if (known := run.read(Verification)) is not None and known.passed:
        return known
    network, space = session.network, session.space
    with session.phase("verify", "Verifying the cut"):
        small = cut(network, space, selection)
        try:
            error = verify(network, small, space, selection, session.example, tolerance=TOLERANCE)
        except VerificationError as problem:
            allowed = ", ".join(space.inexact)
            message = f"Not exact, as allowed ({allowed}). " if allowed else ""
            result = Verification(False, None, TOLERANCE, f"{message}{problem}")
            run.write(result)
            if not allowed:
                raise
            return result
        result = Verification(True, error, TOLERANCE)
        run.write(result)
    return result
