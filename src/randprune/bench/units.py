"""The units of a benchmark: what is done in one go, by any process, and found done afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from randprune.bench.recipe import BenchRecipe
from randprune.bench.records import DENSE, SCRATCH, DenseRecord
from randprune.bench.results import (
    Proposal,
    Training,
    proposal_key,
    row_of,
    training_key,
)
from randprune.store import Accuracy, Candidate, CostEntry, EpochRow

Tell = Callable[[float], None]
"""Receives the share of a unit that is done."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work; equal units do the same, in any process.

    Attributes:
        kind: "prepare", "propose", "train" or "test".
        key: identifies it within a run.
        label, criterion, draw, epochs, training: which proposal or training it is.
        work: how long it takes, in ticks of the progress bar.
    """

    kind: str
    key: str
    label: str = ""
    criterion: str = ""
    draw: int = 0
    epochs: int = 0
    training: int = 0
    work: int = 1

    @property
    def row(self) -> str:
        """The row of the table that it belongs to."""
        return row_of(self.label, self.criterion)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a unit found, JSON-ready.

    Attributes:
        opened: how often the test set was opened while it ran.
        weights_hash: of the dense network, from its preparation.
        candidates, epochs, ledger: what is recorded beside the proposal, training or accuracy.
    """

    opened: int = 0
    weights_hash: str = ""
    dense: DenseRecord | None = None
    proposal: Proposal | None = None
    training: Training | None = None
    test: Accuracy | None = None
    candidates: tuple[Candidate, ...] = ()
    epochs: tuple[EpochRow, ...] = ()
    ledger: tuple[CostEntry, ...] = ()


PREPARE = Unit("prepare", "prepare", work=100)

TEST_DENSE = Unit("test", f"test/{DENSE}", DENSE, DENSE)
"""The final evaluation of the dense network as it was given, beside the proposed ones."""


def proposals(recipe: BenchRecipe) -> Iterator[Unit]:
    """All proposals, draw by draw, so that an interrupted run has whole draws."""
    for draw in range(recipe.design.draws):
        for label in recipe.methods:
            for criterion in recipe.criteria_of(label):
                key = proposal_key(row_of(label, criterion), draw)
                work = 5 + getattr(recipe.method(label), "candidates", 0)
                yield Unit("propose", key, label, criterion, draw, work=work)
        if recipe.setting == "scratch":  # trained beside the others, with the same seeds
            key = proposal_key(row_of(DENSE, SCRATCH), draw)
            yield Unit("propose", key, DENSE, SCRATCH, draw, work=5)


def trainings(recipe: BenchRecipe, proposal: Unit) -> Iterator[Unit]:
    """All trainings of one proposal; their work is counted in hundredths of an epoch."""
    for training in range(recipe.design.trainings):
        for epochs in filter(None, recipe.epochs_of(proposal.label)):
            key = training_key(proposal.row, proposal.draw, epochs, training)
            yield Unit(
                "train",
                key,
                proposal.label,
                proposal.criterion,
                proposal.draw,
                epochs,
                training,
                100 * epochs,
            )


def test_of(unit: Unit) -> Unit:
    """The final evaluation of the network that a unit left."""
    return Unit(
        "test",
        f"test/{unit.key}",
        unit.label,
        unit.criterion,
        unit.draw,
        unit.epochs,
        unit.training,
    )
