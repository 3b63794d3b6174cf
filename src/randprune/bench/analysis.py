"""What a benchmark run shows: the statistics of its rows, at each fine-tuning length.

The independent unit is the draw: results of a row that share a draw are averaged first, so that
several trainings of one configuration never pass for several configurations. A row that failed at
some draw keeps the others, and is compared on what it has in common with the reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from randprune.bench.keys import ProposalKey, Row
from randprune.bench.published import Published, published_for
from randprune.bench.records import BenchRun
from randprune.bench.results import Proposal, Result, Spent
from randprune.bench.stats import (
    Comparison,
    Estimate,
    Pair,
    VarianceSplit,
    at_equal_compute,
    compare_with_baseline,
    kendall_tau,
    mean_interval,
    variance_split,
)
from randprune.store import PROXY, SEARCH_TOP1, Accuracy

COMPUTE_SLACK = 1.05
"""Rows within 5 % of a compute level count as equal to it: budgets have a tolerance, too."""

PROPOSAL_SCORES: Mapping[str, Callable[[Proposal], float | None]] = {
    "proxy": lambda p: p.proxy,
    "minus_kl": lambda p: p.minus_kl,
    "minus_loss": lambda p: p.minus_loss,
    "search": lambda p: None if p.search is None else p.search.share,
    "test_before": lambda p: None if p.test is None else p.test.share,
}
"""What is known of a proposed network before training, by name; higher is better."""


@dataclass(frozen=True, slots=True)
class RowSummary:
    """One row of the table at one fine-tuning length.

    Attributes:
        row: of the table.
        results: that have a test accuracy. failed: that have none, with an error.
        accuracy: mean on the test set over draws; None without results. before: the same networks
            before training, or from scratch on the search images with shared weights.
        macs, params, ratio, candidates: means over the draws of its networks.
        spent: mean total of one result.
    """

    row: Row
    results: int
    failed: int
    accuracy: Estimate | None
    before: Estimate | None
    macs: float | None
    params: float | None
    ratio: float | None
    candidates: float
    spent: Spent


@dataclass(frozen=True, slots=True)
class RankAgreement:
    """How well one score orders networks as another does.

    `estimate` is None where tau is undefined; `among` says in words what was ordered.
    """

    first: str
    second: str
    among: str
    estimate: Estimate | None


class Analysis:
    """All statistics of one run, computed when asked for.

    Attributes:
        run: the records.
        lengths: fine-tuning lengths that have results, ascending.
        main: what tables are made at: of the lengths that most rows are trained for, the longest;
            None without results.
    """

    def __init__(self, run: BenchRun) -> None:
        self.run = run
        self._done: dict[tuple[Row, int], list[Result]] = {}
        for result in run.results:
            if result.status == "ok" and result.test is not None:
                self._done.setdefault((result.row, result.epochs), []).append(result)
        self.lengths = tuple(sorted({epochs for _, epochs in self._done}))
        rows = Counter(e for m in run.protocol.methods for e in m.epochs for _ in m.criteria)
        self.main = max(self.lengths, key=lambda epochs: (rows[epochs], epochs), default=None)

    @property
    def before(self) -> str:
        """The accuracy of a `Result` that says what its network was worth before training."""
        return "test_before" if self.run.protocol.setting == "pretrained" else "search"

    # -- accuracies ----------------------------------------------------------------------------

    @cached_property
    def resolution(self) -> float:
        """1 / images of the test set: the smallest step between two accuracies."""
        images = [r.test.images for rows in self._done.values() for r in rows if r.test]
        return 1 / max(images) if images else 0.0

    @property
    def trained(self) -> tuple[int, ...]:
        """The lengths with training; all of them where nothing was trained."""
        return tuple(epochs for epochs in self.lengths if epochs) or self.lengths

    def results(self, row: Row, epochs: int) -> tuple[Result, ...]:
        """The results of a row that have a test accuracy."""
        return tuple(self._done.get((row, epochs), ()))

    def mean_of(self, results: Sequence[Result], accuracy: str = "test") -> Estimate | None:
        """Mean accuracy over draws; `accuracy`: "test", "test_before" or "search"."""
        by_draw: dict[int, list[float]] = {}
        for result in results:
            found: Accuracy | None = getattr(result, accuracy)
            if found is not None:
                by_draw.setdefault(result.draw, []).append(found.share)
        if not by_draw:
            return None
        means = [float(np.mean(values)) for values in by_draw.values()]
        return _share(mean_interval(means, self.run.protocol.confidence, self.resolution))

    def summaries(self, epochs: int) -> tuple[RowSummary, ...]:
        """All rows at a length, the best first; rows without results last."""
        failures = self.run.failures
        found = []
        for row in self.run.protocol.rows:
            results = self.results(row, epochs)
            networks = {r.draw: r.proposal for r in results}.values()
            found.append(
                RowSummary(
                    row,
                    len(results),
                    sum(f.row == row and f.epochs == epochs for f in failures),
                    self.mean_of(results),
                    self.mean_of(results, self.before),
                    _mean([p.macs for p in networks]),
                    _mean([p.params for p in networks]),
                    _mean([p.ratio for p in networks]),
                    _mean([p.candidates for p in networks]) or 0.0,
                    mean_spent(results),
                )
            )
        best = sorted(found, key=lambda s: np.inf if s.accuracy is None else -s.accuracy.value)
        return tuple(best)

    # -- comparisons ---------------------------------------------------------------------------

    def comparisons(
        self, epochs: int, rows: Sequence[Row] | None = None
    ) -> tuple[Comparison[Row], ...]:
        """Rows against the reference at a length, corrected over all of them.

        `rows`: the family of comparisons; default all rows within the budget. Empty where the
        reference has no results at that length.
        """
        protocol = self.run.protocol
        family = protocol.compared if rows is None else rows
        scores: dict[Row, dict[Pair, float]] = {
            row: {
                (r.draw, r.training): r.test.share
                for r in self.results(row, epochs)
                if r.test is not None
            }
            for row in dict.fromkeys((protocol.reference, *family))
        }
        if not scores[protocol.reference]:
            return ()
        return compare_with_baseline(
            scores,
            protocol.reference,
            margin=protocol.margin,
            alpha=1 - protocol.confidence,
            resolution=self.resolution,
        )

    def spread(self, row: Row, epochs: int) -> Estimate | None:
        """The variance of a row's results from draw to draw, both sources together."""
        values = list(self.by_draw(row, epochs).values())
        if len(values) < 2:
            return None
        return variance_split({"all draws": values}, self.run.protocol.confidence).training

    def variance(self, row: Row, epochs: int) -> VarianceSplit | None:
        """Variance of a row's test accuracy by source; None without results.

        Draws at which a row proposes the very same network, as uniform widths do, are one
        configuration that was trained several times.
        """
        groups: dict[object, list[float]] = {}
        for result in self.results(row, epochs):
            if result.test is not None:
                configuration = result.proposal.selection or result.draw
                groups.setdefault(configuration, []).append(result.test.share)
        return variance_split(groups, self.run.protocol.confidence) if groups else None

    def gain(self, row: Row, fewer: int, more: int) -> Estimate | None:
        """What longer fine-tuning brings a row: mean paired difference over draws."""
        short, long = (self.by_draw(row, epochs) for epochs in (fewer, more))
        both = [long[draw] - short[draw] for draw in short if draw in long]
        step = self.resolution * 2**0.5
        return mean_interval(both, self.run.protocol.confidence, step) if both else None

    def by_draw(self, row: Row, epochs: int) -> dict[int, float]:
        """Test accuracy of a row at each draw, mean over the trainings."""
        found: dict[int, list[float]] = {}
        for result in self.results(row, epochs):
            if result.test is not None:
                found.setdefault(result.draw, []).append(result.test.share)
        return {draw: float(np.mean(values)) for draw, values in found.items()}

    # -- compute -------------------------------------------------------------------------------

    @cached_property
    def compute_levels(self) -> dict[int, float]:
        """Total MACs that a result of the reference takes, by fine-tuning length."""
        reference = self.run.protocol.reference
        found = {e: mean_spent(self.results(reference, e)).macs for e in self.lengths}
        return {epochs: macs for epochs, macs in found.items() if macs}

    def at_compute(self, row: Row, macs: float) -> Estimate | None:
        """A row's accuracy for this total compute (and 5 % more); None where it costs more."""
        curves: dict[int, tuple[list[float], list[float]]] = {}
        for epochs in self.lengths:
            by_draw = self.by_draw(row, epochs)
            for draw, accuracy in by_draw.items():
                spent = mean_spent([r for r in self.results(row, epochs) if r.draw == draw])
                points = curves.setdefault(draw, ([], []))
                points[0].append(spent.macs)
                points[1].append(accuracy)
        if not curves:
            return None
        limit = macs * COMPUTE_SLACK
        confidence = self.run.protocol.confidence
        found = at_equal_compute(list(curves.values()), limit, confidence, self.resolution)
        return None if found is None else _share(found)

    @property
    def published(self) -> tuple[Published, ...]:
        """What is published for the run's network and data, the best first."""
        model = self.run.model
        return published_for(model.name.rpartition(":")[2], model.data)

    # -- candidates and ranks ------------------------------------------------------------------

    def pool(self, row: Row, score: str = SEARCH_TOP1) -> tuple[float, ...]:
        """A score of all candidates that a row evaluated, over all draws."""
        return tuple(
            candidate.scores[score]
            for proposal in self.run.proposals
            if proposal.row == row
            for candidate in self.run.candidates.get(proposal.key, ())
            if score in candidate.scores
        )

    @cached_property
    def largest_pools(self) -> tuple[Row, ...]:
        """Rows with three candidates or more: the reference's method first, then by size."""
        reference = self.run.protocol.reference
        sizes = {row: len(self.pool(row)) for row in self.run.protocol.rows}

        def order(row: Row) -> tuple[bool, int, bool]:
            return self.method(row) != self.method(reference), -sizes[row], row != reference

        return tuple(sorted((row for row, size in sizes.items() if size >= 3), key=order))

    def method(self, row: Row) -> str:
        """The registered method of a row."""
        found = (m.method for m in self.run.protocol.methods if m.label == row.label)
        return next(found, row.label)

    @cached_property
    def agreements(self) -> tuple[RankAgreement, ...]:
        """Kendall's tau among proposed networks, and among the candidates of one search."""
        confidence = self.run.protocol.confidence
        found = [*self._within_searches(confidence)]
        networks = [p for p in self.run.proposals if p.status == "ok"]
        after = (
            {}
            if self.main is None
            else {
                ProposalKey(row, draw): value
                for row in self.run.protocol.rows
                for draw, value in self.by_draw(row, self.main).items()
            }
        )
        names = ("proxy", "minus_kl", "search", "test_before")
        columns: dict[str, dict[ProposalKey, float]] = {
            name: {
                p.key: value for p in networks if (value := PROPOSAL_SCORES[name](p)) is not None
            }
            for name in names
        }
        if self.main:
            columns["test_after"] = after
        pairs = [(a, b) for i, a in enumerate(columns) for b in list(columns)[i + 1 :]]
        for a, b in pairs:
            keys = [key for key in columns[a] if key in columns[b]]
            if len(keys) < 3:
                continue
            tau = kendall_tau(
                [columns[a][k] for k in keys], [columns[b][k] for k in keys], confidence
            )
            found.append(RankAgreement(a, b, f"{len(keys)} proposed networks", tau))
        return tuple(found)

    def _within_searches(self, confidence: float) -> list[RankAgreement]:
        """Tau of candidates within each search, averaged over the searches of each draw."""
        found = []
        for a, b in ((PROXY, SEARCH_TOP1), ("minus_kl", SEARCH_TOP1), (PROXY, "minus_kl")):
            by_draw: dict[int, list[float]] = {}
            sizes = []
            for proposal in self.run.proposals:
                both = [
                    c
                    for c in self.run.candidates.get(proposal.key, ())
                    if a in c.scores and b in c.scores
                ]
                tau = kendall_tau([c.scores[a] for c in both], [c.scores[b] for c in both])
                if tau is not None:
                    by_draw.setdefault(proposal.draw, []).append(tau.value)
                    sizes.append(len(both))
            if not by_draw:
                continue
            means = [float(np.mean(values)) for values in by_draw.values()]
            few, many = min(sizes), max(sizes)
            size = f"{few}" if few == many else f"{few} to {many}"
            among = f"{size} candidates of one search, mean of {len(sizes)} searches"
            found.append(RankAgreement(a, b, among, mean_interval(means, confidence)))
        return found


def mean_spent(results: Sequence[Result]) -> Spent:
    """Mean cost of one result: scores, search and training; counts are rounded."""
    if not results:
        return Spent()
    total = Spent()
    for result in results:
        total = total + result.total
    n = len(results)
    return Spent(
        round(total.candidates / n),
        round(total.images_forward / n),
        round(total.images_backward / n),
        total.macs / n,
        total.seconds / n,
        total.device,
    )


def _share(estimate: Estimate) -> Estimate:
    """The estimate with its interval cut to [0, 1], where accuracies lie: it covers no less."""
    if estimate.low is None or estimate.high is None:
        return estimate
    return replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
