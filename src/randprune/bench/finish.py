"""Fine-tuning of one proposed network, and the final evaluation on the test set."""

from __future__ import annotations

from torch import nn

from randprune.artifact import load, save
from randprune.bench.lab import Lab
from randprune.bench.meter import spent_of
from randprune.bench.records import Training, proposal_key
from randprune.bench.units import DENSE, Outcome, Tell, Unit
from randprune.pipeline.ledger import entry
from randprune.plan import plan_of
from randprune.store import (
    LEARNING_RATE,
    SECONDS,
    TRAIN_LOSS,
    TRAIN_TOP1,
    Accuracy,
    EpochRow,
)
from randprune.training import Teacher, TrainProgress, TrainResult, train
from randprune.training.state import Checkpoint

# Steps between two checkpoints inside an epoch: a minute of work at most.
_EVERY_STEPS = 250


def fine_tune(lab: Lab, unit: Unit, tell: Tell) -> Outcome:
    """Train the proposed network; the last epoch's weights are kept for the test."""
    network = _network(lab, "proposal", proposal_key(unit.row, unit.draw))
    # The same order and augmentation for all rows: what is paired differs in the network alone.
    seed = lab.seed("training", unit.draw, unit.training)
    recipe = lab.recipe.finetune.recipe(unit.epochs, seed)
    teacher = Teacher(lab.model, precision=recipe.precision) if recipe.distill_weight else None

    def progress(now: TrainProgress) -> None:
        tell((now.epoch - 1 + now.step / now.steps) / now.epochs)

    result = train(
        network,
        lab.data.full_train,
        recipe,
        teacher=teacher,
        checkpoint=Checkpoint(lab.work / lab.file("train", unit.key), every_steps=_EVERY_STEPS),
        progress=progress,
        device=lab.device,
    )
    macs = _macs(lab, result.model)
    save(result.model, lab.kept.file(lab.file("trained", unit.key)))
    forward = {macs: result.images_forward}
    forward[lab.macs] = forward.get(lab.macs, 0) + result.images_teacher
    cost = entry(
        "train",
        unit.key,
        seconds=result.seconds,
        device=lab.device,
        forward=forward,
        backward={macs: result.images_backward},
    )
    training = Training(
        unit.row, unit.draw, unit.epochs, unit.training, seed=seed, spent=spent_of(cost)
    )
    return Outcome(training=training, epochs=_epochs(unit, result), ledger=(cost,))


def test(lab: Lab, unit: Unit) -> Outcome:
    """Accuracy on the test set, in float32, of the network that a unit left.

    Called by the runner alone, after every proposal and training of the run is recorded.
    """
    if unit.label == DENSE:
        network = lab.model
    elif unit.epochs == 0:
        network = _network(lab, "proposal", proposal_key(unit.row, unit.draw))
    else:
        network = _network(lab, "trained", unit.key.removeprefix("test/"))
    found = lab.test_evaluator.accuracy(network, name=unit.key)
    cost = entry(
        "test",
        unit.key,
        seconds=found.seconds,
        device=lab.device,
        forward={_macs(lab, network): found.n},
    )
    return Outcome(test=Accuracy(found.correct, found.n), ledger=(cost,))


def _network(lab: Lab, kind: str, key: str) -> nn.Module:
    return load(lab.kept.file(lab.file(kind, key)), model=lab.model)


def _macs(lab: Lab, network: nn.Module) -> float:
    """MACs of one image through a network cut from the dense one."""
    plan = plan_of(network)
    widths = plan.selection.widths if plan else lab.space.widths
    return float(lab.space.cost("macs")(widths))


def _epochs(unit: Unit, result: TrainResult) -> tuple[EpochRow, ...]:
    rows = []
    for epoch in result.history:
        metrics = {
            TRAIN_LOSS: epoch["loss"],
            TRAIN_TOP1: epoch["train_accuracy"],
            LEARNING_RATE: epoch["lr"],
            SECONDS: epoch["seconds"],
        }
        known = {key: value for key, value in metrics.items() if value is not None}
        rows.append(EpochRow(unit.key, epoch["epoch"], known))
    return tuple(rows)
