"""What an analysis knows of a row, of all rows at one length, of candidates and of ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from randprune.bench.keys import Row
from randprune.bench.results import Result, Spent
from randprune.bench.stats import BestOfN, Comparison, Estimate, VarianceSplit


@dataclass(frozen=True, slots=True)
class RowSummary:
    """One row of the table at one fine-tuning length.

    Attributes:
        row: of the table.
        results: that have a test accuracy. failed: how many have none, with an error.
        by_draw: test accuracy at each draw, mean over the trainings.
        accuracy: mean on the test set over draws; None without results. before: the same networks
            before training, or from scratch on the search images with shared weights.
        macs, params, ratio, candidates: means over the draws of its networks.
        spent: mean total of one result. spent_by_draw: its multiply-adds at each draw.
        together: variance of the results from draw to draw; None below two draws.
        variance: the same by source; None without results. Draws at which the row proposes the
            very same network, as uniform widths do, are one configuration, trained several times.
    """

    row: Row
    results: tuple[Result, ...]
    failed: int
    by_draw: Mapping[int, float]
    accuracy: Estimate | None
    before: Estimate | None
    macs: float | None
    params: float | None
    ratio: float | None
    candidates: float
    spent: Spent
    spent_by_draw: Mapping[int, float]
    together: Estimate | None
    variance: VarianceSplit | None


@dataclass(frozen=True, slots=True)
class Length:
    """All rows at one length of training.

    Attributes:
        epochs: the length.
        rows: the best first; rows without results last.
        comparisons: rows within the budget against the reference, corrected over all of them, in
            the order of the protocol; () where the reference has no results.
        dense: the dense network against the reference, where it is a row of its own.
    """

    epochs: int
    rows: tuple[RowSummary, ...]
    comparisons: tuple[Comparison[Row], ...]
    dense: Comparison[Row] | None

    def of(self, row: Row) -> RowSummary:
        """The summary of a row."""
        return next(summary for summary in self.rows if summary.row == row)


@dataclass(frozen=True, slots=True)
class RankAgreement:
    """How well one score orders networks as another does.

    `estimate` is None where tau is undefined; `among` says in words what was ordered.
    """

    first: str
    second: str
    among: str
    estimate: Estimate | None


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """All candidates that a row evaluated, over all draws, in the order drawn.

    Attributes:
        row: of the table.
        values: their search accuracy. labels: which draw and candidate each was.
        curve: how good the best of n of them is.
    """

    row: Row
    values: tuple[float, ...]
    labels: tuple[str, ...]
    curve: BestOfN
