"""The units of a benchmark: what is done in one go, by any process, and found done afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from randprune.bench.keys import NetworkKey, ProposalKey, Row, TrainingKey
from randprune.bench.recipe import BenchRecipe
from randprune.bench.records import DENSE, SCRATCH, DenseRecord
from randprune.bench.results import Proposal, Training
from randprune.store import Accuracy, Candidate, CostEntry, EpochRow

# -- what is done ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make what all other units read."""


@dataclass(frozen=True, slots=True)
class Propose:
    """Make the proposal of a row at a draw."""

    key: ProposalKey


@dataclass(frozen=True, slots=True)
class Train:
    """Train the network of a proposal."""

    key: TrainingKey


@dataclass(frozen=True, slots=True)
class Test:
    """The final evaluation of a network."""

    key: NetworkKey


@dataclass(frozen=True, slots=True)
class TestDense:
    """The final evaluation of the dense network as it was given, beside the proposed ones."""


Unit = Prepare | Propose | Train | Test | TestDense
"""One piece of work; equal units do the same, in any process."""


# -- what came of it ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What every unit leaves.

    Attributes:
        ledger: what it cost.
        opened: how often the test set was opened while it ran.
    """

    ledger: tuple[CostEntry, ...]
    opened: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(Done):
    """The network that all methods begin with; `epochs`: of what was trained for it."""

    dense: DenseRecord
    weights_hash: str
    epochs: tuple[EpochRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed(Done):
    """A proposal and the candidates that it was chosen from."""

    proposal: Proposal
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained(Done):
    """A training."""

    training: Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested(Done):
    """The accuracy of a network on the test set."""

    key: NetworkKey
    test: Accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class TestedDense(Done):
    """The accuracy of the dense network on the test set."""

    test: Accuracy


Outcome = Prepared | Proposed | Trained | Tested | TestedDense
"""What a unit found."""


# -- which units there are ---------------------------------------------------------------------


def proposals(recipe: BenchRecipe) -> Iterator[Propose]:
    """All proposals, draw by draw, so that an interrupted run has whole draws."""
    for draw in range(recipe.design.draws):
        for label in recipe.methods:
            for row in recipe.rows(label):
                yield Propose(ProposalKey(row, draw))
        if recipe.setting == "scratch":  # trained beside the others, with the same seeds
            yield Propose(ProposalKey(Row(DENSE, SCRATCH), draw))


def trainings(recipe: BenchRecipe, proposal: ProposalKey) -> Iterator[Train]:
    """All trainings of one proposal."""
    for training in range(recipe.design.trainings):
        for epochs in filter(None, recipe.epochs_of(proposal.row.label)):
            yield Train(TrainingKey(proposal, epochs, training))


def evaluations(recipe: BenchRecipe, proposal: ProposalKey) -> int:
    """How many candidates a proposal evaluates, as far as its method says beforehand."""
    label = proposal.row.label
    return getattr(recipe.method(label), "candidates", 0) if label in recipe.methods else 0


def work_of(recipe: BenchRecipe, unit: Unit) -> int:
    """How long a unit takes, in ticks of its phase's progress bar."""
    match unit:
        case Prepare():
            return 100
        case Propose(key):
            return 5 + evaluations(recipe, key)
        case Train(key):
            return 100 * key.epochs  # so that it moves within an epoch
        case Test() | TestDense():
            return 1
        case _:
            assert_never(unit)


def total_work(recipe: BenchRecipe, units: Sequence[Unit]) -> int:
    """How long units take, one after the other."""
    return sum(work_of(recipe, unit) for unit in units)


def step_of(unit: Unit) -> str:
    """What a unit's costs go by in the ledger: an identity, which nothing takes apart."""
    match unit:
        case Prepare():
            return "prepare"
        case Propose(key) | Train(key):
            return str(key)
        case Test(key):
            return f"test/{key}"
        case TestDense():
            return f"test/{DENSE}"
        case _:
            assert_never(unit)
