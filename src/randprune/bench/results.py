"""Results of a benchmark: what a row proposed at a draw, how it was trained, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from randprune.bench.keys import ProposalKey, Row, TrainingKey
from randprune.store import Accuracy, CandidateStatus, Item

# Stages of a result's costs.
SCORES = "scores"
PROPOSE = "propose"
SHARED = "shared"
TRAIN = "train"


@dataclass(frozen=True, slots=True)
class Spent:
    """Compute spent: candidates evaluated, images through networks, multiply-adds, wall seconds.

    A backward pass counts twice the multiply-adds of its forward pass.
    """

    candidates: int = 0
    images_forward: int = 0
    images_backward: int = 0
    macs: float = 0.0
    seconds: float = 0.0
    device: str = ""

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.candidates + other.candidates,
            self.images_forward + other.images_forward,
            self.images_backward + other.images_backward,
            self.macs + other.macs,
            self.seconds + other.seconds,
            self.device or other.device,
        )


@dataclass(frozen=True, slots=True)
class Proposal(Item):
    """What one row proposed at one draw: a configuration and its network before training.

    Attributes:
        key: its row and its draw.
        method: the registered method of the row.
        status: "failed" with `error`: it is listed, and has no results.
        widths: the configuration. selection: hash of the channels kept.
        chosen: index of the winner among its candidates; None where none were evaluated.
        macs, params: of the network. ratio: of the budget's metric that remains.
        proxy: predicted quality from the tables of all groups, without a forward pass; higher is
            better. None where no tables were made.
        search: accuracy on the search images after the repair, or with shared weights from
            scratch, in float32.
        minus_kl, minus_loss: on the same images; higher is better.
        test: accuracy on the test set after the repair, before any training.
        spent: by stage, `SCORES` (of the criterion, as if it were alone), `SHARED` (of the shared
            weights, as if it were alone) and `PROPOSE`.
    """

    KIND: ClassVar[str] = "proposal"

    key: ProposalKey
    method: str
    status: CandidateStatus = "ok"
    error: str = ""
    widths: tuple[int, ...] = ()
    selection: str = ""
    chosen: int | None = None
    macs: float | None = None
    params: int | None = None
    ratio: float | None = None
    proxy: float | None = None
    search: Accuracy | None = None
    minus_kl: float | None = None
    minus_loss: float | None = None
    test: Accuracy | None = None
    spent: Mapping[str, Spent] = field(default_factory=dict)

    @property
    def row(self) -> Row:
        """The row of the table."""
        return self.key.row

    @property
    def draw(self) -> int:
        """Number of the draw, from 0."""
        return self.key.draw

    @property
    def candidates(self) -> int:
        """How many candidates were evaluated to find it."""
        return self.spent.get(PROPOSE, Spent()).candidates


@dataclass(frozen=True, slots=True)
class Training(Item):
    """One fine-tuning of a proposed network.

    Attributes:
        key: its proposal, its length, and the number of its training seed.
        test: accuracy on the test set after the last epoch, in float32.
        seed: of order and augmentation, the same for all rows of a draw.
        spent: on the training.
        history: metrics of each epoch, from the first to the last.
    """

    KIND: ClassVar[str] = "training"

    key: TrainingKey
    status: CandidateStatus = "ok"
    error: str = ""
    test: Accuracy | None = None
    seed: int | None = None
    spent: Spent = Spent()
    history: tuple[Mapping[str, float], ...] = ()

    @property
    def row(self) -> Row:
        """The row of the table."""
        return self.key.proposal.row

    @property
    def draw(self) -> int:
        """Number of the draw, from 0."""
        return self.key.proposal.draw

    @property
    def epochs(self) -> int:
        """Its length."""
        return self.key.epochs


@dataclass(frozen=True, slots=True)
class Result:
    """One number of the table with all that belongs to it: a proposal after one training.

    `epochs` 0 is the repaired network without training; it has `training` 0 and its `test` is
    `test_before`.
    """

    proposal: Proposal
    epochs: int
    training: int
    status: CandidateStatus = "ok"
    error: str = ""
    test: Accuracy | None = None
    spent: Mapping[str, Spent] = field(default_factory=dict)

    @property
    def row(self) -> Row:
        """The row of the table."""
        return self.proposal.row

    @property
    def draw(self) -> int:
        """Number of the draw."""
        return self.proposal.draw

    @property
    def test_before(self) -> Accuracy | None:
        """On the test set before training."""
        return self.proposal.test

    @property
    def search(self) -> Accuracy | None:
        """On the search images before training."""
        return self.proposal.search

    @property
    def total(self) -> Spent:
        """All that this result cost: scores of its criterion, search, training."""
        total = Spent()
        for spent in self.spent.values():
            total += spent
        return total

    @property
    def key(self) -> TrainingKey:
        """Identifies it within the run; without training, it is length 0 of training 0."""
        return TrainingKey(self.proposal.key, self.epochs, self.training)


def untrained(proposal: Proposal, epochs: int) -> Result:
    """The result without training: that of a length of 0, or of a proposal that failed."""
    return Result(
        proposal,
        epochs,
        0,
        proposal.status,
        proposal.error,
        proposal.test if epochs == 0 else None,
        proposal.spent,
    )


def trained(proposal: Proposal, training: Training) -> Result:
    """The result of a proposal after one training."""
    spent = {**proposal.spent, TRAIN: training.spent}
    return Result(
        proposal,
        training.key.epochs,
        training.key.training,
        training.status,
        training.error,
        training.test,
        spent,
    )
