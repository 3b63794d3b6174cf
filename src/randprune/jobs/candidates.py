"""Candidates: how a configuration becomes a network, and what is recorded of it.

Two makers stand behind one protocol. `Repaired` cuts a trained network by scores of its channels
and repairs what is left; `Slices` takes the first channels of shared weights. `Evaluations` makes,
judges and records the candidates of one method, whoever proposes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from randprune.cost import FloatArray
from randprune.errors import RandpruneError, StorageError
from randprune.evaluate.engine import pick_device
from randprune.jobs.ledger import cost_entry
from randprune.jobs.progress import Phase
from randprune.jobs.quality import Judge
from randprune.jobs.race import Race
from randprune.jobs.ranking import scores_of, value_of
from randprune.jobs.session import Session
from randprune.recovery import Passes, passes
from randprune.recovery.batch_norm import recalibrate
from randprune.recovery.swaps import swap_channels
from randprune.space import IntArray, Selection
from randprune.store import PROXY, Candidate, CostEntry, content_hash
from randprune.supernet import first_channels
from randprune.surgery import cut, select

# Images a batch when batch-norm statistics of a slice are measured.
_SLICE_BATCH = 250


@dataclass(frozen=True, slots=True, eq=False)
class MadeNetwork:
    """The network of a configuration, with what it took.

    Attributes:
        seconds: by phase: "select" (with the cut) and "recover".
    """

    selection: Selection
    network: nn.Module
    seconds: Mapping[str, float]


class Maker(Protocol):
    """Makes networks of configurations."""

    @property
    def passes(self) -> Passes:
        """What one network is sent while it is made."""
        ...

    def make(self, widths: IntArray) -> MadeNetwork:
        """The network of a configuration (G,)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Repaired:
    """Cuts the session's trained network: channels by scores, then a repair without training.

    Attributes:
        session: whose network is cut.
        scores: one (width,) tensor a group, higher = keep.
        recovery: a chain of repairs, such as "least_squares+sequential".
        swaps: most exchanges of channels in a group, see `randprune.recovery.swaps`.
    """

    session: Session
    scores: Sequence[Tensor]
    recovery: str
    swaps: int = 0

    @property
    def passes(self) -> Passes:
        """Those of the repair."""
        return passes(self.recovery, len(self.session.calibration))

    def choose(self, widths: IntArray) -> Selection:
        """The best channels of every group, after the exchanges."""
        session = self.session
        found = select(session.space, self.scores, widths)
        if not self.swaps:
            return found
        session.moments()
        statistics = session.statistics
        return swap_channels(
            session.space, found, statistics.inverses(), statistics.reference, swaps=self.swaps
        )

    def make(self, widths: IntArray) -> MadeNetwork:
        """The network with the best channels of every group, repaired."""
        session, start = self.session, time.perf_counter()
        selection = self.choose(widths)
        small = cut(session.network, session.space, selection)
        chosen = time.perf_counter()
        network = session.repaired(small, selection, self.recovery)
        done = time.perf_counter()
        seconds = {"select": chosen - start, "recover": done - chosen}
        return MadeNetwork(selection, network, seconds)


@dataclass(frozen=True, slots=True, eq=False)
class Slices:
    """Takes slices of trained shared weights, with batch-norm statistics of their own.

    Attributes:
        session: whose widened network has shared weights.
        shared: that network with its trained shared weights.
    """

    session: Session
    shared: nn.Module

    @property
    def passes(self) -> Passes:
        """Those that batch-norm statistics are measured on."""
        return Passes(len(self.session.calibration))

    def make(self, widths: IntArray) -> MadeNetwork:
        """The network with the first channels of every group."""
        session, start = self.session, time.perf_counter()
        place = pick_device(session.device)
        selection = first_channels(session.space, widths)
        small = cut(self.shared, session.space, selection)
        chosen = time.perf_counter()
        batch = min(_SLICE_BATCH, session.rules.batch_size or _SLICE_BATCH)
        images = (images.to(place) for images, _ in session.calibration.batches(batch))
        network = recalibrate(small.to(place), images)
        done = time.perf_counter()
        seconds = {"select": chosen - start, "recover": done - chosen}
        return MadeNetwork(selection, network, seconds)


class Others(Protocol):
    """Whoever makes and judges candidates beside this process."""

    def judged(
        self, method: str, phase: str, rows: Sequence[tuple[int, tuple[int, ...]]]
    ) -> Iterator[tuple[Candidate, tuple[CostEntry, ...]]]:
        """The candidates of these indices and widths, with what each cost, as they are done."""
        ...


@dataclass(slots=True, eq=False)
class Evaluations:
    """Makes, judges and records the candidates of one method, in the order of proposal.

    What the ledger holds already is not made again, so that a resumed job goes on with the first
    configuration that has no record; equal widths are made once. Every candidate is recorded before
    the next one is begun.

    Attributes:
        session: of the job.
        maker: makes their networks.
        judge: measures them on the search images.
        proposer: a candidate with what all of them have in common: the method that proposes them,
            and in a benchmark its criterion and draw.
        phase: of the ledger's entries.
        predict: configurations (N, G) -> predicted quality (N,), recorded beside the evaluation;
            None where nothing predicts.
        running: the phase of the job's progress that new candidates advance.
        race: stops candidates that are clearly behind; None: all see all images.
        others: make and judge candidates in place of this process; None: nobody.
        found: the candidates so far.
    """

    session: Session
    maker: Maker
    judge: Judge
    proposer: Candidate
    phase: str
    predict: Callable[[IntArray], FloatArray] | None = None
    running: Phase | None = None
    race: Race | None = None
    others: Others | None = None
    found: list[Candidate] = field(init=False, default_factory=list)
    known: dict[int, Candidate] = field(init=False)
    _by_widths: dict[tuple[int, ...], Candidate] = field(init=False, default_factory=dict)
    _best: float = field(init=False, default=-np.inf)

    def __post_init__(self) -> None:
        recorded = self.session.ledger.candidates(self.proposer.method)
        self.known = {candidate.index: candidate for candidate in recorded}

    def values(self, rows: IntArray) -> list[float]:
        """What the next candidates (N, G) are worth, higher = better; -inf for failed ones."""
        if self.others is not None:
            self._have_made(self.others, rows)
        rank_by = self.session.rules.rank_by
        return [value_of(self.next(widths), rank_by) for widths in rows]

    def _have_made(self, others: Others, rows: IntArray) -> None:
        """Record what others make of the next candidates, but for what is known of them."""
        asked: dict[tuple[int, ...], int] = {}
        for index, widths in enumerate(rows, len(self.found)):
            row = tuple(widths.tolist())
            if index not in self.known and row not in self._by_widths:
                asked.setdefault(row, index)
        for made, cost in others.judged(
            self.proposer.method, self.phase, [(index, row) for row, index in asked.items()]
        ):
            candidate = made if made.costs else replace(made, costs=self._costs(made.widths))
            if self.predict is not None and made.status == "ok":
                proxy = float(self.predict(np.array([made.widths]))[0])
                candidate = replace(candidate, scores={**made.scores, PROXY: proxy})
            self.session.ledger.record_candidate(candidate, cost)
            self.known[candidate.index] = candidate
            self._best = max(self._best, value_of(candidate, "accuracy"))
            if self.running is not None:
                self.running.at(self.running.done + 1, best_top1=self._best)

    def next(self, widths: IntArray) -> Candidate:
        """The next candidate; one that cannot be made or evaluated is recorded as failed.

        Raises:
            StorageError: the records hold another configuration in its place.
        """
        index, row = len(self.found), tuple(widths.tolist())
        candidate = self.known.get(index)
        if candidate is None:
            candidate = self._twin(index, row) or self.made(index, widths)
        elif candidate.widths != row:
            raise StorageError(
                f"Candidate {index} of {self.proposer.method!r} in the records has other widths "
                "than this version of randprune proposes. Use a new output folder."
            )
        if self.race is not None:
            self.race.enter(candidate.scores)
        self.found.append(candidate)
        self._by_widths.setdefault(row, candidate)
        self._best = max(self._best, value_of(candidate, "accuracy"))
        if self.running is not None and index not in self.known:
            self.running.at(max(self.running.done, index + 1), best_top1=self._best)
        return candidate

    def _twin(self, index: int, row: tuple[int, ...]) -> Candidate | None:
        """The record of an earlier candidate of the same widths under this index."""
        twin = self._by_widths.get(row)
        if twin is not None:
            twin = replace(twin, index=index, seconds={})
            self.session.ledger.record_candidate(twin)
        return twin

    def _costs(self, widths: Sequence[int] | IntArray) -> dict[str, float]:
        row = np.asarray(widths)
        return {name: float(cost(row)) for name, cost in self.session.space.costs.items()}

    def made(self, index: int, widths: IntArray) -> Candidate:
        """Make, judge and record the candidate of this index."""
        session = self.session
        costs = self._costs(widths)
        blank = replace(self.proposer, index=index, widths=tuple(widths), costs=costs)
        runner = self.race.runner() if self.race is not None else None
        goes_on = runner.goes_on if runner is not None else None
        try:
            made = self.maker.make(widths)
            name = f"candidate {blank.method}/{index}"
            quality = self.judge.quality(made.network, name, goes_on)
        except (StorageError, MemoryError):
            raise
        except (RandpruneError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            text = f"{type(error).__name__}: {error}"
            candidate, spent = replace(blank, status="failed", error=text), Passes()
        else:
            scores = scores_of(quality)
            if runner is not None:
                scores |= runner.end(quality)
            if self.predict is not None:
                scores[PROXY] = float(self.predict(widths[None])[0])
            candidate = replace(
                blank,
                scores=scores,
                seconds={**made.seconds, "evaluate": quality.seconds},
                selection=selection_hash(made.selection),
            )
            spent = Passes(quality.samples) + self.maker.passes
        entry = cost_entry(
            self.phase,
            f"{blank.method}/{index}",
            seconds=sum(candidate.seconds.values()),
            device=session.device,
            candidates=1,
            forward={session.macs(widths): spent.forward},
            backward={session.macs(widths): spent.backward},
        )
        session.ledger.record_candidate(candidate, [entry])
        return candidate


def selection_hash(selection: Selection) -> str:
    """Hash of the kept channels, to compare across runs."""
    return content_hash([kept.tolist() for kept in selection])
