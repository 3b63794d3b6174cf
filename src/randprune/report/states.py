"""How far the runs of a folder are, read from their records while others write them.

Nothing is locked or created: any number of readers may look, from any machine that sees the folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from randprune.bench.records import Protocol
from randprune.bench.results import Proposal, Training
from randprune.errors import StorageError
from randprune.store import (
    FINALIST_TOP1,
    SEARCHED,
    Candidate,
    ModelInfo,
    Run,
    RunStatus,
    SearchInfo,
    Store,
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One kind of work of a run.

    Attributes:
        name: what is counted, such as "candidates".
        done: how many there are. total: how many there will be; None where that is not known yet.
        seconds: what one takes, the median of what was measured; None before the first.
        failed: how many of them failed.
    """

    name: str
    done: int
    total: int | None = None
    seconds: float | None = None
    failed: int = 0

    @property
    def left(self) -> float | None:
        """Seconds of work that are left, one after the other; None where they are not known."""
        if self.total is None or self.seconds is None:
            return None
        return max(0, self.total - self.done) * self.seconds


@dataclass(frozen=True, slots=True)
class RunState:
    """One run of a folder.

    Attributes:
        id: in the order in which they were begun.
        kind: "prune", "scratch" or "bench".
        title: of the network, or of the benchmark.
        state: "running" only where a process works on it now.
        started, finished: ISO 8601 in UTC, "" where not reached.
        error: of a failed run.
        sessions: how many processes have worked on it, one after the other.
        stages: of its work.
    """

    id: int
    kind: str
    title: str
    state: RunStatus
    started: str
    finished: str
    error: str
    sessions: int
    stages: tuple[Stage, ...]


def states_of(folder: str | os.PathLike[str]) -> tuple[RunState, ...]:
    """All runs of an output folder, in the order in which they were begun.

    Raises:
        StorageError: no records there, or not readable.
    """
    with Store.open(folder, read_only=True) as store, store.snapshot():
        found = tuple(_state(run) for run in store.runs())
    if not found:
        raise StorageError(f"Nothing has been begun in {os.fspath(folder)} yet.")
    return found


def _state(run: Run) -> RunState:
    info, protocol, model = run.info, run.read(Protocol), run.read(ModelInfo)
    state: RunStatus = info.status
    if state == "running" and not run.at_work:
        state = "interrupted"
    title = protocol.title if protocol else model.title if model else ""
    stages = _bench(run, protocol) if protocol else _job(run)
    return RunState(
        info.id,
        info.kind,
        title,
        state,
        info.started,
        info.finished,
        info.error,
        len(run.sessions()),
        stages,
    )


def _job(run: Run) -> tuple[Stage, ...]:
    search = run.read(SearchInfo)
    by_method: dict[str, list[Candidate]] = {}
    for candidate in run.candidates():
        by_method.setdefault(candidate.method, []).append(candidate)
    stages = []
    for method, found in by_method.items():
        total = search.planned if search and method == SEARCHED else None
        seconds = [spent for c in found if (spent := sum(c.seconds.values()))]
        failed = sum(c.status == "failed" for c in found)
        name = "candidates" if method == SEARCHED else f"candidates, {method.replace('_', ' ')}"
        stages.append(Stage(name, len(found), total, _median(seconds), failed))
    finalists = sum(FINALIST_TOP1 in c.scores for found in by_method.values() for c in found)
    for name, count in (
        ("finalists and controls", finalists),
        ("epochs", len(run.epochs())),
        ("networks measured", sum(row.test is not None for row in run.networks())),
    ):
        if count:
            stages.append(Stage(name, count))
    return tuple(stages)


def _bench(run: Run, protocol: Protocol) -> tuple[Stage, ...]:
    proposals, trainings = run.items(Proposal), run.items(Training)
    draws, seeds = len(protocol.draw_seeds), len(protocol.training_seeds)
    # A proposal that failed is not trained.
    lost = [p for p in proposals if p.status == "failed"]
    of_one = {m.label: seeds * sum(epochs > 0 for epochs in m.epochs) for m in protocol.methods}
    planned = sum(len(m.rows) * draws * of_one[m.label] for m in protocol.methods)
    planned -= sum(of_one[p.key.row.label] for p in lost)
    return (
        Stage(
            "proposals",
            len(proposals),
            len(protocol.rows) * draws,
            _median([s for p in proposals if (s := sum(x.seconds for x in p.spent.values()))]),
            len(lost),
        ),
        Stage(
            "trainings",
            len(trainings),
            planned,
            _median([t.spent.seconds for t in trainings if t.spent.seconds]),
            sum(t.status == "failed" for t in trainings),
        ),
    )


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
