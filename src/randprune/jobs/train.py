"""The one training of a job: progress, checkpoints, epochs and costs recorded, the network kept.

Checkpoints let a killed job go on within the epoch. What is finished is kept as a network, with its
epochs and costs beside it: another process, or a resumed one, only records them again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from torch import nn

from randprune.jobs.ledger import cost_entry
from randprune.jobs.progress import Phase
from randprune.jobs.session import Session
from randprune.store import (
    LEARNING_RATE,
    SECONDS,
    TRAIN_LOSS,
    TRAIN_TOP1,
    CostEntry,
    EpochRow,
)
from randprune.training import Teacher, TrainProgress, TrainRecipe, TrainResult, TrainStep, train
from randprune.training.state import Checkpoint
from randprune.zoo.splits import Samples

# Steps between two checkpoints inside an epoch: minutes of work at most, at seconds of cost.
_EVERY_STEPS = 250
# A progress bar moves this often within an epoch.
_TICKS = 100


@dataclass(frozen=True, slots=True, eq=False)
class NamedTraining:
    """How a network is trained, and the names under which it is kept, shown and recorded.

    Attributes:
        name: of the kept network.
        label: what people call it; epochs are recorded under this name.
        text: what the progress bar says.
        phase, key: of the ledger's entry; `key` also names the progress phase.
        recipe: how to train.
        macs: of one image through the network, on average over steps where they differ.
        teacher: the network to learn from, with its own `teacher_macs`.
        step: what a step computes, instead of cross-entropy and distillation.
    """

    name: str
    label: str
    text: str
    phase: str
    key: str
    recipe: TrainRecipe
    macs: float
    teacher: Teacher | None = None
    teacher_macs: float = 0.0
    step: TrainStep | None = None


def trained(
    session: Session,
    training: NamedTraining,
    start: nn.Module | Callable[[], nn.Module],
    split: Samples,
    finish: Callable[[nn.Module], nn.Module] = lambda trained: trained,
) -> nn.Module:
    """The trained network, or the one that an earlier process has kept.

    Args:
        session: whose records and folder these are.
        training: how, and under which names.
        start: the network to start from, which is not modified, or what makes it.
        split: training images.
        finish: what is kept of the trained network.
    """
    total = max(1, training.recipe.epochs) * _TICKS
    found, network = _kept(session, training)
    done = 0 if network is None else total
    with session.phase(training.key, training.text, total=total, done=done) as running:
        if network is None or found is None:
            result = train(
                start if isinstance(start, nn.Module) else start(),
                split,
                training.recipe,
                teacher=training.teacher,
                step=training.step,
                checkpoint=Checkpoint(
                    session.made.folder / f"train-{training.name}", every_steps=_EVERY_STEPS
                ),
                progress=_Shown(session, training, running),
                device=session.device,
            )
            network = session.made.keep_network(training.name, finish(result.model))
            found = _Finished(_cost(session, training, result), _epochs(training.label, result))
            session.made.keep_document(training.name, asdict(found))
        with session.ledger.transaction():
            for row in found.epochs:
                session.ledger.record_epoch(row.network, row.epoch, row.metrics)
            session.ledger.add_cost(found.cost)
    return network


def training_cost(session: Session, name: str) -> CostEntry:
    """What the finished training of this name cost, whichever process has done it."""
    return CostEntry(**session.made.made_document(name)["cost"])


@dataclass(frozen=True, slots=True)
class _Finished:
    """What is recorded of a training that is complete."""

    cost: CostEntry
    epochs: tuple[EpochRow, ...]


def _kept(session: Session, training: NamedTraining) -> tuple[_Finished | None, nn.Module | None]:
    """What an earlier process has finished, None where either part of it is missing."""
    document = session.made.document(training.name)
    if document is None:
        return None, None
    network = session.made.network(training.name, session.original.network)
    rows = tuple(EpochRow(**row) for row in document["epochs"])
    return _Finished(CostEntry(**document["cost"]), rows), network


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """Passes a training's progress on to people, and to the records at the end of each epoch."""

    session: Session
    training: NamedTraining
    running: Phase

    def __call__(self, now: TrainProgress) -> None:
        done = (now.epoch - 1) * _TICKS + _TICKS * now.step // now.steps
        self.running.at(max(self.running.done, done), loss=now.loss)
        if now.step == now.steps:
            metrics = {TRAIN_LOSS: now.loss}
            self.session.ledger.record_epoch(self.training.label, now.epoch, metrics)


def _cost(session: Session, training: NamedTraining, result: TrainResult) -> CostEntry:
    forward = {training.macs: result.images_forward}
    forward[training.teacher_macs] = forward.get(training.teacher_macs, 0) + result.images_teacher
    return cost_entry(
        training.phase,
        training.key,
        seconds=result.seconds,
        device=session.device,
        forward=forward,
        backward={training.macs: result.images_backward},
    )


def _epochs(network: str, result: TrainResult) -> tuple[EpochRow, ...]:
    """The epochs of a training as they are recorded, under the network's name."""
    rows = []
    for epoch in result.history:
        metrics = {
            TRAIN_LOSS: epoch["loss"],
            TRAIN_TOP1: epoch["train_accuracy"],
            LEARNING_RATE: epoch["lr"],
            SECONDS: epoch["seconds"],
        }
        known = {key: value for key, value in metrics.items() if value is not None}
        rows.append(EpochRow(network, epoch["epoch"], known))
    return tuple(rows)
