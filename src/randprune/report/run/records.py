"""What a report is made of: one run's records as plain, frozen data.

A report, a benchmark and a test build the same `RunRecord`: from an output folder, from an open
run, or by hand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from randprune.store import (
    NEVER_OPENED,
    SEARCH_TOP1,
    SEARCHED,
    ArtifactInfo,
    BudgetInfo,
    Candidate,
    CostEntry,
    CurvePoint,
    EpochRow,
    MetricInfo,
    Milestone,
    ModelInfo,
    NetworkRow,
    Notes,
    Openings,
    Reproduce,
    Run,
    RunInfo,
    RunStatus,
    SearchInfo,
    Session,
    SpaceInfo,
    Store,
    UseOfTestSet,
    Verification,
    Winner,
    curve_of,
    openings_of,
)

M = TypeVar("M", bound=Milestone)

_TYPED = (
    MetricInfo,
    ModelInfo,
    SpaceInfo,
    BudgetInfo,
    SearchInfo,
    Winner,
    Verification,
    ArtifactInfo,
    Reproduce,
    UseOfTestSet,
    Notes,
)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything recorded of one run, as of one moment.

    `status` is the true state: a run noted as running whose process is gone is interrupted.
    `runs_in_folder`: how many runs the output folder holds, this one included. `curve`: accuracy
    against cost, of a job with several budgets. `openings`: of the test set, by all runs there.
    """

    info: RunInfo
    status: RunStatus
    candidates: tuple[Candidate, ...] = ()
    networks: tuple[NetworkRow, ...] = ()
    epochs: tuple[EpochRow, ...] = ()
    ledger: tuple[CostEntry, ...] = ()
    sessions: tuple[Session, ...] = ()
    milestones: Mapping[type[Milestone], Milestone] = field(default_factory=dict)
    runs_in_folder: int = 1
    curve: tuple[CurvePoint, ...] = ()
    openings: Openings = NEVER_OPENED

    @classmethod
    def load(cls, folder: str | os.PathLike[str], run_id: int | None = None) -> RunRecord:
        """The records of an output folder, also while a job writes them.

        `run_id`: one of several runs in the folder; default the one worked on last.

        Raises:
            StorageError: no records there, or not readable.
        """
        with Store.open(folder, read_only=True) as store:
            run = store.latest() if run_id is None else store.get(run_id)
            return cls.of(run)

    @classmethod
    def of(cls, run: Run) -> RunRecord:
        """The records of an open run."""
        with run.store.snapshot():
            info, sessions = run.info, run.sessions()
            found = {kind: run.read(kind) for kind in _TYPED}
            record = cls(
                info=info,
                status=info.status,
                candidates=run.candidates(),
                networks=run.networks(),
                epochs=run.epochs(),
                ledger=run.ledger(),
                sessions=sessions,
                milestones={kind: value for kind, value in found.items() if value is not None},
                runs_in_folder=len(run.store.runs()),
                curve=curve_of(run),
                openings=openings_of(run),
            )
        if info.status != "running" or run.at_work:
            return record
        # It may have ended between the two looks.
        return replace(record, status="interrupted") if run.info == info else cls.of(run)

    def milestone(self, kind: type[M]) -> M | None:
        """The milestone of this class, or None where the run has not come so far."""
        found = self.milestones.get(kind)
        return found if isinstance(found, kind) else None

    @property
    def title(self) -> str:
        """What people call the network."""
        model = self.milestone(ModelInfo)
        return model.title if model else "Network"

    def scored(self, method: str, score: str = SEARCH_TOP1) -> tuple[Candidate, ...]:
        """The method's candidates that have this score, by index."""
        return tuple(c for c in self.candidates if c.method == method and score in c.scores)

    @property
    def winner(self) -> Candidate | None:
        """The candidate that the search chose."""
        chosen = self.milestone(Winner)
        if chosen is None:
            return None
        wanted = (chosen.method, chosen.index)
        return next((c for c in self.candidates if (c.method, c.index) == wanted), None)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods that proposed candidates, the search first."""
        names = dict.fromkeys(c.method for c in self.candidates)
        return tuple(sorted(names, key=lambda name: (name != SEARCHED, name)))
