"""What the records of a benchmark go by: its rows, their proposals, and the trainings of those."""

from __future__ import annotations

from dataclasses import dataclass

RANDOM_CRITERION = "random"
"""The criterion of methods that choose channels by themselves."""


@dataclass(frozen=True, order=True, slots=True)
class Row:
    """One row of the table: what a method is called in the recipe, and the criterion it used.

    `str` gives what people read and what CSV files hold, "random_search/l1"; nothing reads it back.
    """

    label: str
    criterion: str

    def __str__(self) -> str:
        return f"{self.label}/{self.criterion}"


@dataclass(frozen=True, order=True, slots=True)
class ProposalKey:
    """Which proposal: of a row, at a draw, counted from 0."""

    row: Row
    draw: int

    def __str__(self) -> str:
        return f"{self.row}/draw-{self.draw}"


@dataclass(frozen=True, order=True, slots=True)
class TrainingKey:
    """Which training: of a proposal, of this length, with a training seed, counted from 0."""

    proposal: ProposalKey
    epochs: int
    training: int

    def __str__(self) -> str:
        return f"{self.proposal}/epochs-{self.epochs}/training-{self.training}"


NetworkKey = ProposalKey | TrainingKey
"""Which network: as it was proposed, or after a training."""
