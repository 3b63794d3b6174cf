"""What a benchmark run shows: each statistic of its rows, computed once.

The independent unit is the draw: results of a row that share a draw are averaged first, so that
several trainings of one configuration never pass for several configurations. A row that failed at
some draw keeps the others, and is compared on what it has in common with the reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from randprune.bench.keys import Row
from randprune.bench.published import Published, published_for
from randprune.bench.records import BenchRun
from randprune.bench.results import Proposal, Result, Spent
from randprune.bench.stats import (
    Comparison,
    Estimate,
    Pair,
    SameMethod,
    at_equal_compute,
    best_of_n,
    compare_with_baseline,
    kendall_tau,
    mean_interval,
    same_method,
    variance_split,
)
from randprune.bench.stats.same import LEAST
from randprune.bench.summaries import Length, Pool, RankAgreement, RowSummary
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


@dataclass(frozen=True)
class Analysis:
    """All statistics of one run. Nothing is computed before it is asked for, and nothing twice."""

    run: BenchRun

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """Every result, failed ones too."""
        return self.run.results

    @cached_property
    def failures(self) -> tuple[Result, ...]:
        """The results that could not be had."""
        return tuple(result for result in self.results if result.status == "failed")

    @cached_property
    def _done(self) -> Mapping[tuple[Row, int], tuple[Result, ...]]:
        found: dict[tuple[Row, int], list[Result]] = {}
        for result in self.results:
            if result.status == "ok" and result.test is not None:
                found.setdefault((result.row, result.epochs), []).append(result)
        return {key: tuple(results) for key, results in found.items()}

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Fine-tuning lengths that have results, ascending."""
        return tuple(sorted({epochs for _, epochs in self._done}))

    @property
    def trained(self) -> tuple[int, ...]:
        """The lengths with training; all of them where nothing was trained."""
        return tuple(epochs for epochs in self.lengths if epochs) or self.lengths

    @cached_property
    def main(self) -> Length | None:
        """What tables are made at: of the lengths that most rows are trained for, the longest.

        None without results.
        """
        rows = Counter(e for m in self.run.protocol.methods for e in m.epochs for _ in m.criteria)
        longest = max(self.lengths, key=lambda epochs: (rows[epochs], epochs), default=None)
        return None if longest is None else self.at[longest]

    @cached_property
    def resolution(self) -> float:
        """1 / images of the test set: the smallest step between two accuracies."""
        images = [r.test.images for rows in self._done.values() for r in rows if r.test]
        return 1 / max(images) if images else 0.0

    @cached_property
    def dense_interval(self) -> tuple[float, float] | None:
        """Wilson's interval of the dense network as it was given."""
        test = self.run.dense.test
        return None if test is None else test.interval()

    # -- rows ----------------------------------------------------------------------------------

    @cached_property
    def at(self) -> Mapping[int, Length]:
        """The statistics at each length that has results."""
        return {epochs: self._length(epochs) for epochs in self.lengths}

    def _length(self, epochs: int) -> Length:
        protocol = self.run.protocol
        found = [self._summary(row, epochs) for row in protocol.rows]
        best = sorted(found, key=lambda s: np.inf if s.accuracy is None else -s.accuracy.value)
        dense = self._compared(epochs, [protocol.dense_row]) if protocol.dense_row else ()
        return Length(
            epochs,
            tuple(best),
            self._compared(epochs, protocol.compared),
            next(iter(dense), None),
        )

    def _summary(self, row: Row, epochs: int) -> RowSummary:
        results = self._done.get((row, epochs), ())
        confidence = self.run.protocol.confidence
        before = "test_before" if self.run.protocol.setting == "pretrained" else "search"
        by_draw = _by_draw(results, "test")
        networks = {r.draw: r.proposal for r in results}.values()
        draws = {draw: [r for r in results if r.draw == draw] for draw in by_draw}
        configurations: dict[object, list[float]] = {}
        for r in results:
            if r.test is not None:
                key = r.proposal.selection or r.draw
                configurations.setdefault(key, []).append(r.test.share)
        values = list(by_draw.values())
        together = None
        if len(values) > 1:
            together = variance_split({"all draws": values}, confidence).training
        return RowSummary(
            row,
            results,
            sum(f.row == row and f.epochs == epochs for f in self.failures),
            by_draw,
            self._mean(by_draw),
            self._mean(_by_draw(results, before)),
            _mean([p.macs for p in networks]),
            _mean([p.params for p in networks]),
            _mean([p.ratio for p in networks]),
            _mean([p.candidates for p in networks]) or 0.0,
            mean_spent(results),
            {draw: mean_spent(found).macs for draw, found in draws.items()},
            together,
            variance_split(configurations, confidence) if configurations else None,
        )

    def _mean(self, by_draw: Mapping[int, float]) -> Estimate | None:
        if not by_draw:
            return None
        values = list(by_draw.values())
        return _share(mean_interval(values, self.run.protocol.confidence, self.resolution))

    def _compared(self, epochs: int, rows: Sequence[Row]) -> tuple[Comparison[Row], ...]:
        protocol = self.run.protocol
        every = dict.fromkeys((protocol.reference, *rows))
        scores = {row: self._scores(row, epochs) for row in every}
        if not scores[protocol.reference]:
            return ()
        return compare_with_baseline(
            scores,
            protocol.reference,
            margin=protocol.margin,
            alpha=1 - protocol.confidence,
            resolution=self.resolution,
        )

    def _scores(self, row: Row, epochs: int) -> dict[Pair, float]:
        """Test accuracies of a row by draw and training."""
        return {
            (r.draw, r.training): r.test.share
            for r in self._done.get((row, epochs), ())
            if r.test is not None
        }

    @cached_property
    def same(self) -> SameMethod | None:
        """Tables of the rows that are the reference's method again; None where there are too few.

        They have its method, criterion and options, but for the stream of random numbers.
        """
        protocol, main = self.run.protocol, self.main
        kinds = {row: (m, row.criterion) for m in protocol.methods for row in m.rows}
        reference, criterion = kinds[protocol.reference]
        rows = [
            row
            for row, (m, ranked_by) in kinds.items()
            if (m.method, ranked_by) == (reference.method, criterion)
            and _without_stream(m.options) == _without_stream(reference.options)
        ]
        if main is None or len(rows) < LEAST:
            return None
        scores = {row: self._scores(row, main.epochs) for row in rows}
        if not set.intersection(*(set(found) for found in scores.values())):
            return None
        return same_method(
            scores,
            margin=protocol.margin,
            alpha=1 - protocol.confidence,
            resolution=self.resolution,
        )

    # -- lengths and compute -------------------------------------------------------------------

    @property
    def span(self) -> tuple[int, int]:
        """The lengths that are compared: the shortest and the longest training.

        Where all that were trained had one length, the shortest is no training.
        """
        first, last = self.trained[0], self.trained[-1]
        return (self.lengths[0] if first == last else first), last

    @cached_property
    def gains(self) -> Mapping[Row, Estimate]:
        """What the longest training brings a row over the shortest: mean paired difference."""
        first, last = (self.at[epochs] for epochs in self.span)
        step = self.resolution * 2**0.5
        found = {}
        for summary in first.rows:
            long, short = last.of(summary.row).by_draw, summary.by_draw
            both = [long[draw] - short[draw] for draw in short if draw in long]
            if both:
                found[summary.row] = mean_interval(both, self.run.protocol.confidence, step)
        return found

    @cached_property
    def order_kept(self) -> tuple[int, Estimate | None]:
        """How many rows the shortest and the longest training order, and how far they agree."""
        first, last = (self.at[epochs] for epochs in self.span)
        pairs = [
            (short.accuracy.value, long.accuracy.value)
            for short in first.rows
            if short.accuracy is not None and (long := last.of(short.row)).accuracy is not None
        ]
        return len(pairs), kendall_tau([a for a, _ in pairs], [b for _, b in pairs])

    @cached_property
    def compute_levels(self) -> Mapping[int, float]:
        """Total MACs that a result of the reference takes, by fine-tuning length."""
        reference = self.run.protocol.reference
        found = {epochs: length.of(reference).spent.macs for epochs, length in self.at.items()}
        return {epochs: macs for epochs, macs in found.items() if macs}

    @cached_property
    def at_equal_compute(self) -> Mapping[int, Mapping[Row, Estimate | None]]:
        """Accuracy of every row for the compute of each level (and 5 % more), by length.

        None where a row costs more than that.
        """
        rows = self.run.protocol.rows
        return {
            epochs: {row: self.for_compute(row, macs) for row in rows}
            for epochs, macs in self.compute_levels.items()
        }

    def for_compute(self, row: Row, macs: float) -> Estimate | None:
        """A row's accuracy for this total compute (and 5 % more); None where it costs more."""
        curves: dict[int, tuple[list[float], list[float]]] = {}
        for length in self.at.values():
            summary = length.of(row)
            for draw, accuracy in summary.by_draw.items():
                points = curves.setdefault(draw, ([], []))
                points[0].append(summary.spent_by_draw[draw])
                points[1].append(accuracy)
        if not curves:
            return None
        limit = macs * COMPUTE_SLACK
        confidence = self.run.protocol.confidence
        found = at_equal_compute(list(curves.values()), limit, confidence, self.resolution)
        return None if found is None else _share(found)

    @cached_property
    def published(self) -> tuple[Published, ...]:
        """What is published for the run's network and data, the best first."""
        model = self.run.model
        return published_for(model.name.rpartition(":")[2], model.data)

    # -- candidates and ranks ------------------------------------------------------------------

    @cached_property
    def pool(self) -> Pool | None:
        """The largest pool of three candidates or more; one of the reference's method first."""
        reference = self.run.protocol.reference
        found: dict[Row, list[tuple[float, str]]] = {row: [] for row in self.run.protocol.rows}
        for proposal in self.run.proposals:
            found.setdefault(proposal.row, []).extend(
                (c.scores[SEARCH_TOP1], f"draw {proposal.draw}, candidate {c.index}")
                for c in self.run.candidates.get(proposal.key, ())
                if SEARCH_TOP1 in c.scores
            )

        def order(row: Row) -> tuple[bool, int, bool]:
            own = self.method(row) == self.method(reference)
            return not own, -len(found[row]), row != reference

        row = min((row for row, pool in found.items() if len(pool) > 2), key=order, default=None)
        if row is None:
            return None
        values = tuple(value for value, _ in found[row])
        return Pool(row, values, tuple(label for _, label in found[row]), best_of_n(values))

    def method(self, row: Row) -> str:
        """The registered method of a row."""
        found = (m.method for m in self.run.protocol.methods if m.label == row.label)
        return next(found, row.label)

    @cached_property
    def agreements(self) -> tuple[RankAgreement, ...]:
        """Kendall's tau among proposed networks, and among the candidates of one search."""
        networks = [p for p in self.run.proposals if p.status == "ok"]
        names = ("proxy", "minus_kl", "search", "test_before")
        columns: dict[str, dict[tuple[Row, int], float]] = {
            name: {
                (p.row, p.draw): value
                for p in networks
                if (value := PROPOSAL_SCORES[name](p)) is not None
            }
            for name in names
        }
        if self.main is not None and self.main.epochs:
            columns["test_after"] = {
                (summary.row, draw): value
                for summary in self.main.rows
                for draw, value in summary.by_draw.items()
            }
        found = list(self._within_searches())
        pairs = [(a, b) for i, a in enumerate(columns) for b in list(columns)[i + 1 :]]
        for a, b in pairs:
            keys = [key for key in columns[a] if key in columns[b]]
            if len(keys) < 3:
                continue
            # Networks of one row have much in common: the row is what was drawn independently.
            tau = kendall_tau(
                [columns[a][k] for k in keys],
                [columns[b][k] for k in keys],
                self.run.protocol.confidence,
                clusters=[row for row, _ in keys],
            )
            found.append(RankAgreement(a, b, f"{len(keys)} proposed networks", tau))
        return tuple(found)

    def _within_searches(self) -> list[RankAgreement]:
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
            mean = mean_interval(means, self.run.protocol.confidence)
            found.append(RankAgreement(a, b, among, mean))
        return found


def _by_draw(results: Sequence[Result], accuracy: str) -> dict[int, float]:
    """An accuracy ("test", "test_before" or "search") at each draw, mean over the trainings."""
    found: dict[int, list[float]] = {}
    for result in results:
        known: Accuracy | None = getattr(result, accuracy)
        if known is not None:
            found.setdefault(result.draw, []).append(known.share)
    return {draw: float(np.mean(values)) for draw, values in found.items()}


def _without_stream(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "stream"}


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
