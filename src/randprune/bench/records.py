"""What a benchmark run holds, as plain frozen data: its protocol, every result, and what it cost.

run = BenchRun.load("runs/f1")
for result in run.results:
    print(result.row, result.draw, result.training, result.epochs, result.test)

A *row* is what a table compares: a method with its criterion, `Row("random_search", "l1")`. For
each row and each *draw* (a seed of configurations, shared by all rows) there is one `Proposal`: a
cut, repaired, verified network. For each proposal, each fine-tuning length and each *training* (a
seed of order and augmentation) there is one `Result`. Accuracies on the test set are those of the
last epoch, in float32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from randprune.bench.keys import ProposalKey, Row, TrainingKey
from randprune.bench.results import Proposal, Result, Training, trained, untrained
from randprune.errors import StorageError
from randprune.store import (
    NEVER_OPENED,
    Accuracy,
    BudgetInfo,
    Candidate,
    CostEntry,
    EpochRow,
    Milestone,
    ModelInfo,
    Openings,
    Reproduce,
    Run,
    RunInfo,
    RunStatus,
    Session,
    SpaceInfo,
    Store,
    UseOfTestSet,
    openings_of,
)

M = TypeVar("M", bound=Milestone)

Setting = Literal["pretrained", "scratch"]
"""Whether networks were cut from a trained one, or widths were searched without one."""

_UNOPENED = UseOfTestSet(before_final=0, final=0)

DENSE = "dense"
"""The dense network: its label, and its method where it is a row of its own, as from scratch."""
SCRATCH = "scratch"
"""Stands for the criterion from scratch, where nothing ranks channels."""


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """One method of the recipe, under the name that its rows carry.

    Attributes:
        label: the name in the recipe, which its rows go by.
        method: the registered method, such as "random_search".
        options: what its constructor got.
        criteria: the criteria that it was run with, one row each; one that chooses channels by
            itself has a single row.
        epochs: its fine-tuning lengths.
        words: one sentence for readers who do not know it.
    """

    label: str
    method: str
    options: Mapping[str, Any]
    criteria: tuple[str, ...]
    epochs: tuple[int, ...]
    words: str = ""

    @property
    def rows(self) -> tuple[Row, ...]:
        """Its rows of the table."""
        return tuple(Row(self.label, criterion) for criterion in self.criteria)


@dataclass(frozen=True, slots=True)
class Protocol(Milestone):
    """The rules of a run, fixed before its first result.

    Attributes:
        title: what people call the run.
        study: the name of the shipped study that the recipe comes from, "" for any other.
        setting: pre-trained networks, or widths searched from scratch.
        weights_hash: of the checkpoint that all methods begin with; from scratch, of the shared
            weights.
        methods: in the order of the recipe; from scratch also the dense network, the last one.
        reference: the row to which differences are taken.
        draw_seeds: one per draw; all rows of a draw see the same configurations.
        training_seeds: one per training, of the first draw; the other draws have their own, which
            `Training.seed` gives.
        recovery: of every proposed network, without training; "" from scratch.
        rank_by: what candidates are compared by on the search images.
        min_keep, round_to: limits on widths, the same for all methods.
        finetune: the training recipe, without its length and its seed.
        widen, supernet: from scratch, how the network was widened, and how its shared weights were
            trained.
        notes: what people should know besides, such as groups that could not be widened.
        margin: differences of test accuracy smaller than this count as equivalent; a share.
        confidence: of the intervals.
    """

    KEY: ClassVar[str] = "bench_protocol"

    title: str
    setting: Setting
    weights_hash: str
    methods: tuple[MethodInfo, ...]
    reference: Row
    draw_seeds: tuple[int, ...]
    training_seeds: tuple[int, ...]
    recovery: str
    study: str = ""
    rank_by: str = "kl"
    min_keep: float = 0.1
    round_to: int = 1
    finetune: Mapping[str, Any] = field(default_factory=dict)
    margin: float = 0.005
    confidence: float = 0.95
    widen: Mapping[str, Any] = field(default_factory=dict)
    supernet: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def dense_row(self) -> Row | None:
        """The row of the dense network where it is trained like the others."""
        found = (row for m in self.methods if m.method == DENSE for row in m.rows)
        return next(found, None)

    @property
    def compared(self) -> tuple[Row, ...]:
        """The rows that meet the budget: all but the dense network's."""
        return tuple(row for row in self.rows if row != self.dense_row)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of the table, in the order of the recipe."""
        return tuple(row for method in self.methods for row in method.rows)

    @property
    def epochs(self) -> tuple[int, ...]:
        """All fine-tuning lengths, ascending."""
        return tuple(sorted({length for method in self.methods for length in method.epochs}))


@dataclass(frozen=True, slots=True)
class DenseRecord(Milestone):
    """The network before pruning; `test` is measured in the final evaluation.

    From scratch it has no accuracies of its own: it is trained like the others, as a row.
    """

    KEY: ClassVar[str] = "bench_dense"

    macs: float
    params: int
    search: Accuracy | None = None
    test: Accuracy | None = None


@dataclass(frozen=True, slots=True)
class BenchRun:
    """Everything recorded of one benchmark run, as of one moment.

    `status` is the true state: a run noted as running whose process is gone is interrupted.
    """

    info: RunInfo
    status: RunStatus
    protocol: Protocol
    model: ModelInfo
    space: SpaceInfo
    budget: BudgetInfo
    dense: DenseRecord
    proposals: tuple[Proposal, ...] = ()
    trainings: tuple[Training, ...] = ()
    candidates: Mapping[ProposalKey, tuple[Candidate, ...]] = field(default_factory=dict)
    """By `Proposal.key`, in the order in which they were evaluated."""
    preparation: tuple[EpochRow, ...] = ()
    """Epochs of what was trained for all rows; those of a `Training` are its `history`."""
    ledger: tuple[CostEntry, ...] = ()
    """What the run really spent; passes that criteria share are here once."""
    sessions: tuple[Session, ...] = ()
    test_set: UseOfTestSet = _UNOPENED
    openings: Openings = NEVER_OPENED
    reproduce: Reproduce | None = None

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> BenchRun:
        """The records of the benchmark in an output folder, also while it runs.

        Raises:
            StorageError: no records of a benchmark there, or not readable.
        """
        with Store.open(folder, read_only=True) as store:
            run = store.latest()
            if run.info.kind != "bench":
                raise StorageError(
                    f"The run in {store.folder} is a {run.info.kind!r} job, not a benchmark. "
                    "Give the output folder of randprune bench."
                )
            live = store.is_live() is not False
            return cls.of(run, live=live)

    @classmethod
    def of(cls, run: Run, *, live: bool = True) -> BenchRun:
        """The records of an open run; `live`: whether a process works on it."""
        with run.store.snapshot():
            info = run.info
            candidates: dict[ProposalKey, list[Candidate]] = {}
            for candidate in run.candidates():
                row = Row(candidate.method, candidate.criterion)
                candidates.setdefault(ProposalKey(row, candidate.draw), []).append(candidate)
            return cls(
                info=info,
                status="interrupted" if info.status == "running" and not live else info.status,
                protocol=_required(run, Protocol),
                model=_required(run, ModelInfo),
                space=_required(run, SpaceInfo),
                budget=_required(run, BudgetInfo),
                dense=_required(run, DenseRecord),
                proposals=run.items(Proposal),
                trainings=run.items(Training),
                candidates={key: tuple(found) for key, found in candidates.items()},
                preparation=run.epochs(),
                ledger=run.ledger(),
                sessions=run.sessions(),
                test_set=run.read(UseOfTestSet) or _UNOPENED,
                openings=openings_of(run),
                reproduce=run.read(Reproduce),
            )

    @property
    def results(self) -> tuple[Result, ...]:
        """One per row, draw, length and training, in the order of the protocol; failed ones too.

        A proposal that failed has one failed result for each length, with its error. What the run
        has not come to yet is left out.
        """
        trainings = {training.key: training for training in self.trainings}
        lengths = {method.label: method.epochs for method in self.protocol.methods}
        order = {row: number for number, row in enumerate(self.protocol.rows)}
        found: list[Result] = []
        for proposal in sorted(
            self.proposals, key=lambda p: (order.get(p.row, len(order)), p.draw)
        ):
            for epochs in lengths.get(proposal.row.label, ()):
                if proposal.status == "failed" or epochs == 0:
                    found.append(untrained(proposal, epochs))
                    continue
                for number in range(len(self.protocol.training_seeds)):
                    key = TrainingKey(proposal.key, epochs, number)
                    if key in trainings:
                        found.append(trained(proposal, trainings[key]))
        return tuple(found)

    @property
    def failures(self) -> tuple[Result, ...]:
        """The results that could not be had, with their errors."""
        return tuple(result for result in self.results if result.status == "failed")


def _required(run: Run, kind: type[M]) -> M:
    found = run.read(kind)
    if found is None:
        raise StorageError(
            f"The benchmark in {run.store.folder} has only just begun: its {kind.KEY} is not "
            "recorded yet. Try again in a moment."
        )
    return found
