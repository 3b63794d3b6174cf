"""What a finished pruning job hands back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from randprune.cost import Budget
from randprune.errors import InvalidInputError
from randprune.jobs.notebook import figure_of, html_table
from randprune.recipe import PruneRecipe, ScratchRecipe
from randprune.space import IntArray, Selection, Space
from randprune.store import (
    DENSE,
    SEARCHED,
    Candidate,
    CostEntry,
    NetworkRow,
    Stage,
    Verification,
    Winner,
)
from randprune.store.speedup import speedup
from randprune.tasks import ACCURACY, Metric

JobRecipes = PruneRecipe | ScratchRecipe

# What the winner's role was called before a search could have any strategy.
_OLD_SEARCHED = "random"

_STAGE_WORDS: dict[Stage, str] = {
    "dense": "as given",
    "cut": "cut",
    "repaired": "repaired",
    "finetuned": "fine-tuned",
}


_MOST_NOTES = 12
_SCRATCH_WORDS = {**_STAGE_WORDS, "dense": "full width", "finetuned": "trained"}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PruneResult:
    """A pruned network and how it came about.

    Attributes:
        model: the pruned network, in evaluation mode, on the device of the one given.
        selection: which channels of each group it keeps.
        space: the dense network's channel groups.
        budget: what was asked.
        networks: every network that was set beside another, at every stage, with test accuracy,
            costs and latency.
        candidates: every configuration that was evaluated, controls included.
        winner: which of them was chosen.
        verification: that the cut computes what the masked dense network computes.
        ledger: what each step cost.
        recipe: what was asked, defaults included.
        folder: where the records are; None where none were asked for.
        artifact: the file that `randprune.load` reads; None without a folder.
        notes: what a reader must know.
        metric: what the networks' results are.
    """

    model: nn.Module
    selection: Selection
    space: Space
    budget: Budget
    networks: tuple[NetworkRow, ...]
    candidates: tuple[Candidate, ...]
    winner: Winner
    verification: Verification
    ledger: tuple[CostEntry, ...]
    recipe: JobRecipes
    folder: Path | None = None
    artifact: Path | None = None
    notes: tuple[str, ...] = ()
    metric: Metric = ACCURACY

    def without_folder(self) -> PruneResult:
        """The same result where the folder is not kept."""
        return replace(self, folder=None, artifact=None)

    @property
    def widths(self) -> IntArray:
        """The winning configuration, int64 (G,)."""
        return self.selection.widths

    @property
    def configurations(self) -> IntArray:
        """The configurations that were searched, in order, int64 (N, G)."""
        rows = [c.widths for c in self.candidates if c.method == SEARCHED]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.space))

    def scores(self, name: str) -> npt.NDArray[np.float64]:
        """One score of the searched configurations, (N,), higher = better; NaN where it failed."""
        found = [c for c in self.candidates if c.method == SEARCHED]
        return np.array([c.scores.get(name, np.nan) for c in found])

    def network(self, role: str, stage: Stage | None = None) -> NetworkRow:
        """The row of "dense", "searched" (the winner), "uniform" or "random_channels".

        Of several seeds the first.

        Args:
            role: which network.
            stage: "dense", "cut", "repaired" or "finetuned"; default: the last one reached.

        Raises:
            InvalidInputError: there is no such row; names those that there are.
        """
        if role == _OLD_SEARCHED:
            warnings.warn(
                f"The winner's role is {SEARCHED!r}: {_OLD_SEARCHED!r} will mean nothing in 0.2.",
                FutureWarning,
                stacklevel=2,
            )
            role = SEARCHED
        rows = [r for r in self.networks if r.role == role and stage in (None, r.stage)]
        if not rows:
            known = ", ".join(f"{row.role}/{row.stage}" for row in self.networks)
            raise InvalidInputError(f"No network {role!r} at stage {stage!r}. There are: {known}.")
        return max(rows, key=lambda row: list(_STAGE_WORDS).index(row.stage))

    def value(self, role: str = SEARCHED, stage: Stage | None = None) -> float:
        """The metric of a network on the test set, the mean over seeds; see `network`.

        Raises:
            InvalidInputError: there is no such network, or it was not tested.
        """
        row = self.network(role, stage)
        shares = [r.test.share for r in self._seeds(row) if r.test is not None]
        if not shares:
            raise InvalidInputError(f"The network {row.label!r} has no test result. {row.error}")
        return fmean(shares)

    def accuracy(self, role: str = SEARCHED, stage: Stage | None = None) -> float:
        """Test accuracy in [0, 1] of a network; see `value`.

        Raises:
            InvalidInputError: the task's metric is another one.
        """
        if self.metric != ACCURACY:
            raise InvalidInputError(
                f"The networks' metric is {self.metric.name}, not accuracy: ask for value(...)."
            )
        return self.value(role, stage)

    def _seeds(self, row: NetworkRow) -> list[NetworkRow]:
        """The rows of a network at a stage, one a seed."""
        return [r for r in self.networks if (r.label, r.stage) == (row.label, row.stage)]

    @property
    def seconds(self) -> float:
        """Wall time of all recorded steps."""
        return sum(entry.seconds for entry in self.ledger)

    def summary(self) -> str:
        """The outcome in a few lines of text."""
        (network, stage, title, *_), *rows = self._table()
        wide = max(7, len(title))
        lines = [f"{network:<20} {stage:<11} {title:>{wide}} {'MACs':>7} {'params':>7}"]
        for label, stage, test, macs, params, _, spread in rows:
            line = f"{label:<20} {stage:<11} {test:>{wide}} {macs:>7} {params:>7}"
            lines.append(f"{line}  {spread}" if spread else line)
        return "\n".join([*lines, *self._remarks()])

    def _table(self) -> list[tuple[str, ...]]:
        """A header, and a row of text for each network at each stage."""
        dense = next((row for row in self.networks if row.role == DENSE), None)
        macs, params = (dense.macs, dense.params) if dense else (None, None)
        words = _SCRATCH_WORDS if self.recipe.job == "scratch" else _STAGE_WORDS
        title = "test" if self.metric == ACCURACY else self.metric.name
        table: list[tuple[str, ...]] = [
            ("network", "stage", title, "MACs", "params", "speed", "seeds")
        ]
        for label, stage in dict.fromkeys((row.label, row.stage) for row in self.networks):
            rows = [r for r in self.networks if (r.label, r.stage) == (label, stage)]
            shares = [row.test.share for row in rows if row.test is not None]
            spread = ""
            if len(shares) > 1:
                low, high = (
                    self.metric.shown(limit).removesuffix(" %")
                    for limit in (min(shares), max(shares))
                )
                spread = f"{len(shares)} seeds, {low}-{high}"
            test = self.metric.shown(fmean(shares)) if shares else "-"
            sizes = (_share(rows[0].macs, macs), _share(rows[0].params, params))
            speed = _speed(dense, rows[0])
            table.append((label, words[stage], test, *sizes, speed, spread))
        return table

    def _remarks(self) -> list[str]:
        searched = sum(1 for c in self.candidates if c.method == SEARCHED)
        by_phase: dict[str, float] = {}
        for entry in self.ledger:
            by_phase[entry.phase] = by_phase.get(entry.phase, 0.0) + entry.seconds
        spent = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in by_phase.items())
        lines = [
            f"Candidate {self.winner.index} of {searched}, {self.budget.ratio:.0%} of the "
            f"{self.budget.metric} asked; {_verified(self.verification)}.",
            f"Time: {spent}.",
        ]
        if self.artifact is not None:
            lines.append(f"Saved: {self.artifact}")
        lines += self.notes[:_MOST_NOTES]
        if (more := len(self.notes) - _MOST_NOTES) > 0:
            lines.append(f"... and {more} more notes, see .notes")
        return lines

    def plot(self, figure: str = "stages") -> Any:
        """A figure of the report as a `plotly.graph_objects.Figure`, which notebooks show.

        Needs the extra `randprune[notebook]`.

        Args:
            figure: "stages" (the networks, step by step), "tradeoff" (against their MACs),
                "candidates" (how good they were), "best_of" (the best of n of them), "costs",
                "proxy" (predicted against measured), "widths", or "time" (where it went).

        Raises:
            InvalidInputError: no such figure, too little for it, or plotly is not installed.
        """
        return figure_of(self, figure)

    def __repr__(self) -> str:
        return f"{type(self).__name__}\n{self.summary()}"

    def _repr_html_(self) -> str:
        table = self._table()
        # What no network has is no column: a speed that was not measured, seeds where one trains.
        used = [column for column in zip(*table, strict=True) if any(column[1:])]
        header, *rows = zip(*used, strict=True)
        return html_table(type(self).__name__, header, rows, self._remarks())


def _share(value: float | None, dense: float | None) -> str:
    return f"{value / dense:.1%}" if value and dense else "-"


def _speed(dense: NetworkRow | None, row: NetworkRow) -> str:
    """How many times faster than the dense network, the median; "" where that was not measured."""
    if dense is None or not dense.latency or not row.latency:
        return ""
    found = speedup(dense.latency[0], row.latency[0])
    return "" if found is None else f"{found.median:.2f}x"


def _verified(verification: Verification) -> str:
    if verification.passed and verification.relative_error is not None:
        return f"cut verified, relative error {verification.relative_error:.1e}"
    return verification.message or "cut not verified"
