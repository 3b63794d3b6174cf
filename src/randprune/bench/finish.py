"""Training of one proposed network, and the final evaluation on the test set."""

from __future__ import annotations

from torch import nn

from randprune.artifact import load, save
from randprune.bench.lab import Lab
from randprune.bench.meter import spent_of
from randprune.bench.once import EVERY_STEPS, telling
from randprune.bench.results import Training, proposal_key
from randprune.bench.units import TEST_DENSE, Outcome, Tell, Unit
from randprune.jobs.ledger import entry
from randprune.jobs.trained import epoch_rows
from randprune.lineage import plan_of
from randprune.store import Accuracy
from randprune.training import train
from randprune.training.state import Checkpoint


def train_proposed(lab: Lab, unit: Unit, tell: Tell) -> Outcome:
    """Train the proposed network; the last epoch's weights are kept for the test."""
    # The same order and augmentation for all rows: what is paired differs in the network alone.
    seed = lab.seed("training", unit.draw, unit.training)
    network = lab.start(_network(lab, "proposal", proposal_key(unit.row, unit.draw)), seed)
    recipe = lab.recipe.trained_by.recipe(unit.epochs, seed)
    result = train(
        network,
        lab.data.full_train,
        recipe,
        teacher=lab.teacher(recipe),
        checkpoint=Checkpoint(lab.work / lab.file("train", unit.key), every_steps=EVERY_STEPS),
        progress=telling(tell),
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
    return Outcome(training=training, epochs=epoch_rows(unit.key, result), ledger=(cost,))


def test(lab: Lab, unit: Unit) -> Outcome:
    """Accuracy on the test set, in float32, of the network that a unit left.

    Called by the runner alone, after every proposal and training of the run is recorded.
    """
    if unit == TEST_DENSE:
        network = lab.base
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
    return load(lab.kept.file(lab.file(kind, key)), model=lab.untrained)


def _macs(lab: Lab, network: nn.Module) -> float:
    """MACs of one image through a network cut from the base."""
    plan = plan_of(network)
    widths = plan.selection.widths if plan else lab.space.widths
    return float(lab.space.cost("macs")(widths))
