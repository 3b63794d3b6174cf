"""Accuracy against cost: what the records of several budgets say together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from randprune.errors import StorageError
from randprune.store.rows import (
    DENSE,
    SEARCHED,
    UNIFORM,
    ArtifactInfo,
    BudgetInfo,
    BudgetSeries,
    NetworkRow,
    Stage,
)
from randprune.store.run import Run


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One budget: what was found, and uniform widths beside it. Shares are in [0, 1].

    Attributes:
        ratio: the budget that was asked for.
        macs: share of the dense network's MACs that remains.
        accuracy: test accuracy of the network that was found.
        stage: how far it has come: "repaired" without training, or "finetuned".
        common: the last stage that uniform widths have reached, too; None where no uniform widths
            meet the budget.
        beside: the network's test accuracy at that stage.
        uniform: that of uniform widths.
        file: the network's, "" where none is kept.
    """

    ratio: float
    macs: float
    accuracy: float
    stage: Stage
    common: Stage | None = None
    beside: float | None = None
    uniform: float | None = None
    file: str = ""

    @classmethod
    def of(cls, ratio: float, networks: Iterable[NetworkRow], file: str = "") -> CurvePoint | None:
        """The point of a job's networks; None where the network is not measured yet."""
        rows = [row for row in networks if row.test is not None and row.macs]
        dense = next((row.macs for row in rows if row.role == DENSE), None)
        ours, theirs = _by_stage(rows, SEARCHED), _by_stage(rows, UNIFORM)
        if dense is None or not ours:
            return None
        stage = list(ours)[-1]
        macs = next(row.macs for row in rows if row.role == SEARCHED) or 0.0
        common = next((at for at in reversed(ours) if at in theirs), None)
        return cls(
            ratio=ratio,
            macs=macs / dense,
            accuracy=ours[stage],
            stage=stage,
            common=common,
            beside=None if common is None else ours[common],
            uniform=None if common is None else theirs[common],
            file=file,
        )


def _by_stage(rows: Iterable[NetworkRow], role: str) -> dict[Stage, float]:
    """Test accuracy of a network by stage, the last one at the end; cut alone does not count."""
    tested = [row for row in rows if row.role == role and row.test is not None]
    stages: tuple[Stage, ...] = ("repaired", "finetuned")
    found = {
        at: [row.test.share for row in tested if row.test and row.stage == at] for at in stages
    }
    return {at: fmean(shares) for at, shares in found.items() if shares}


def runs_by_budget(run: Run) -> dict[float, Run]:
    """The runs of the job with several budgets that a run is a part of, by ratio; else none."""
    series = run.read(BudgetSeries)
    found: dict[float, Run] = {}
    for other in run.store.runs() if series is not None else ():
        budget = other.read(BudgetInfo)
        if budget is not None and other.read(BudgetSeries) == series:
            found[budget.ratio] = other
    return dict(sorted(found.items(), reverse=True))


def run_of_budget(run: Run, ratio: float) -> Run:
    """The run of one of the budgets.

    Raises:
        StorageError: there is none; gives those that there are.
    """
    found = runs_by_budget(run)
    if ratio not in found:
        known = ", ".join(f"{ratio:g}" for ratio in found) or "none: the job has one budget"
        raise StorageError(
            f"No run of the budget {ratio:g} in {run.store.folder}. Its budgets: {known}."
        )
    return found[ratio]


def curve_of(run: Run) -> tuple[CurvePoint, ...]:
    """The points of the job that a run is a part of, the largest budget first.

    Empty for a job with one budget. Budgets whose networks are not measured yet are left out.
    """
    points = []
    for ratio, other in runs_by_budget(run).items():
        file = other.read(ArtifactInfo)
        points.append(CurvePoint.of(ratio, other.networks(), file.file if file else ""))
    return tuple(point for point in points if point is not None)
