"""What one run's records say: each statistic of its page, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from randprune.bench.stats import BestOfN, Estimate, best_of_n, kendall_tau, mean_interval
from randprune.report.chart import SERIES
from randprune.report.ledger import Ledger
from randprune.report.names import ROLES, Words, words_of
from randprune.report.pools import Reference
from randprune.report.run.records import RunRecord
from randprune.report.scale import Scale
from randprune.store import (
    DENSE,
    PROXY,
    SEARCH_TOP1,
    SEARCHED,
    UNIFORM,
    Accuracy,
    Candidate,
    Latency,
    MetricInfo,
    NetworkRow,
    Result,
    Stage,
)
from randprune.store.speedup import Speedup, speedup

STAGES: tuple[Stage, ...] = ("dense", "cut", "repaired", "finetuned")
"""From the first to the last."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """A network at one stage.

    Attributes:
        rows: one a seed. tests: those that were tested.
        share: mean test result over the seeds; None without a test.
        interval: of 95 %. Of one network Wilson's, which covers the choice of images; of several
            seeds the t interval, which covers the chance of training.
    """

    stage: Stage
    rows: tuple[NetworkRow, ...]
    tests: tuple[Result, ...]
    share: float | None
    interval: tuple[float, float] | None

    @property
    def error(self) -> str:
        """Why there is no accuracy, "" where there is nothing to say."""
        return next((row.error for row in self.rows if row.error), "")


@dataclass(frozen=True, slots=True)
class NetworkResult:
    """One network over all its stages; costs are those of its latest stage that has them."""

    label: str
    role: str
    color: str
    stages: Mapping[Stage, StageResult]
    candidate: int | None
    macs: float | None
    params: float | None
    size_bytes: int | None
    latency: Latency | None
    speedup: Speedup | None

    @property
    def last(self) -> StageResult | None:
        """The furthest stage that has a test accuracy."""
        return next((s for s in reversed(list(self.stages.values())) if s.share is not None), None)


@dataclass(frozen=True)
class RunAnalysis:
    """All that the page of a run is made of, besides the records themselves."""

    record: RunRecord

    @cached_property
    def words(self) -> Words:
        """What things are called in the run's setting."""
        found = words_of("scratch" if self.record.info.kind == "scratch" else "pretrained")
        return replace(found, repaired="repaired, shortly distilled") if self.distilled else found

    @cached_property
    def distilled(self) -> bool:
        """Whether the repair trained, if without labels: then it is not one without training."""
        repairs = (entry for entry in self.record.ledger if entry.phase == "finalists")
        return any(entry.images_backward for entry in repairs)

    @cached_property
    def scale(self) -> Scale:
        """How the run's metric is written."""
        return Scale(self.record.milestone(MetricInfo) or MetricInfo())

    # -- networks ------------------------------------------------------------------------------

    @cached_property
    def intervals(self) -> Mapping[Result, tuple[float, float] | None]:
        """The interval of every test result: Wilson's where right answers are counted."""
        tests = dict.fromkeys(row.test for row in self.record.networks if row.test is not None)
        return {test: test.interval() for test in tests}

    @cached_property
    def networks(self) -> tuple[NetworkResult, ...]:
        """The networks, dense first, then the search's, then as recorded."""
        order = {DENSE: 0, SEARCHED: 1}
        rows = sorted(self.record.networks, key=lambda row: order.get(row.role, 2))
        by_label: dict[str, list[NetworkRow]] = {}
        for row in rows:
            by_label.setdefault(row.label, []).append(row)
        timed = next((r.latency[0] for r in rows if r.role == DENSE and r.latency), None)
        return tuple(self._network(found, timed) for found in by_label.values())

    def _network(self, rows: Sequence[NetworkRow], dense: Latency | None) -> NetworkResult:
        latest = sorted(rows, key=lambda row: -STAGES.index(row.stage))
        first = latest[0]
        latency = next((row.latency[0] for row in latest if row.latency), None)
        faster = None
        if latency is not None and dense is not None and first.role != DENSE:
            faster = speedup(dense, latency)
        by_stage = {stage: [row for row in rows if row.stage == stage] for stage in STAGES}
        return NetworkResult(
            first.label,
            first.role,
            self.color_of(first.label),
            {stage: self._stage(stage, found) for stage, found in by_stage.items() if found},
            first.candidate,
            next((row.macs for row in latest if row.macs is not None), None),
            next((row.params for row in latest if row.params is not None), None),
            next((row.size_bytes for row in latest if row.size_bytes is not None), None),
            latency,
            faster,
        )

    def _stage(self, stage: Stage, rows: Sequence[NetworkRow]) -> StageResult:
        tests = tuple(row.test for row in rows if row.test is not None)
        if not tests:
            return StageResult(stage, tuple(rows), tests, None, None)
        interval = self.intervals[tests[0]]
        if len(tests) > 1:
            counted = isinstance(tests[0], Accuracy)
            resolution = 1 / max(test.images for test in tests) if counted else 0.0
            found = mean_interval([test.share for test in tests], resolution=resolution)
            low, high = found.interval or (found.value, found.value)
            interval = (max(0.0, low), min(1.0, high)) if self.scale.shares else (low, high)
        share = fmean(test.share for test in tests)
        return StageResult(stage, tuple(rows), tests, share, interval)

    @cached_property
    def _roles(self) -> Mapping[str, str]:
        return {row.label: row.role for row in self.record.networks}

    def color_of(self, label: str) -> str:
        """The colour of a network or method: its role's, or one of the series for any other."""
        role = self._roles.get(label, label)
        if role in ROLES:
            return role
        others = [name for name in dict.fromkeys(self._roles.values()) if name not in ROLES]
        return SERIES[others.index(role) % len(SERIES)] if role in others else SERIES[0]

    def _first(self, role: str) -> NetworkResult | None:
        return next((network for network in self.networks if network.role == role), None)

    @cached_property
    def dense(self) -> NetworkResult | None:
        """The network before pruning."""
        return self._first(DENSE)

    @cached_property
    def chosen(self) -> NetworkResult | None:
        """The search's result, once it has a test accuracy."""
        found = [n for n in self.networks if n.role == SEARCHED and n.last is not None]
        return max(found, key=lambda n: STAGES.index(n.last.stage) if n.last else -1, default=None)

    @cached_property
    def ledger(self) -> Ledger:
        """What the run cost."""
        return Ledger.of(self.record.ledger)

    # -- candidates ----------------------------------------------------------------------------

    @cached_property
    def scored(self) -> tuple[Candidate, ...]:
        """The candidates of the search that were evaluated, in the order drawn."""
        return self.record.scored(SEARCHED)

    @cached_property
    def curve(self) -> BestOfN | None:
        """How good the best of n candidates is; None for fewer than three."""
        shares = [c.scores[SEARCH_TOP1] for c in self.scored]
        return best_of_n(shares) if len(shares) > 2 else None

    @cached_property
    def predicted(self) -> tuple[Candidate, ...]:
        """The evaluated candidates that have a proxy."""
        return tuple(c for c in self.scored if PROXY in c.scores)

    @cached_property
    def agreement(self) -> Estimate | None:
        """Kendall's tau of the proxy and the search accuracy."""
        proxy = [c.scores[PROXY] for c in self.predicted]
        return kendall_tau(proxy, [c.scores[SEARCH_TOP1] for c in self.predicted])

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """What candidates are compared with.

        A reference is the method's own candidate, which went through the same recovery and images.
        """
        found: dict[str, Reference] = {}
        for row in self.record.networks:
            if row.search is not None and row.role == DENSE:
                found[DENSE] = Reference(row.label, DENSE, row.search.share)
        for method in self.record.methods:
            scored = self.record.scored(method)
            if method != SEARCHED and len(scored) == 1:
                share = self.scale.value(scored[0].scores[SEARCH_TOP1])
                found[method] = Reference(self.words.method(method), self.color_of(method), share)
        for row in self.record.networks:
            other = row.role not in (DENSE, SEARCHED) and row.stage == "repaired"
            if row.search is not None and other:
                reference = Reference(row.label, self.color_of(row.label), row.search.share)
                found.setdefault(row.role, reference)
        return tuple(found.values())

    # -- widths --------------------------------------------------------------------------------

    def _widths_of(self, role: str) -> tuple[int, ...] | None:
        """The configuration of a role: of its network, else of its only candidate."""
        rows = [row for row in self.record.networks if row.role == role and row.widths]
        if rows:
            return rows[-1].widths
        proposed = [c for c in self.record.candidates if c.method == role]
        return proposed[0].widths if len(proposed) == 1 else None

    @cached_property
    def widths(self) -> tuple[int, ...] | None:
        """The chosen configuration; while the search goes on, that of the best candidate so far."""
        winner = self.record.winner
        if winner is not None:
            return winner.widths
        found = self._widths_of(SEARCHED)
        if found is not None or not self.scored:
            return found
        return max(self.scored, key=lambda c: c.scores[SEARCH_TOP1]).widths

    @cached_property
    def uniform_widths(self) -> tuple[int, ...] | None:
        """The configuration of uniform width."""
        return self._widths_of(UNIFORM)
