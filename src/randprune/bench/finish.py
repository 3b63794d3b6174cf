"""Training of one proposed network, and the final evaluation on the test set."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from randprune.artifact import load, save
from randprune.bench.keys import NetworkKey, ProposalKey, TrainingKey
from randprune.bench.lab import Lab
from randprune.bench.meter import spent_of
from randprune.bench.once import EVERY_STEPS, telling
from randprune.bench.results import Training
from randprune.bench.units import Test, TestDense, Tested, TestedDense, Train, Trained, step_of
from randprune.executors import Tell
from randprune.jobs.ledger import entry
from randprune.jobs.trained import epoch_rows
from randprune.lineage import plan_of
from randprune.store import Accuracy, CostEntry
from randprune.training import train
from randprune.training.state import Checkpoint


def train_proposed(lab: Lab, key: TrainingKey, tell: Tell) -> Trained:
    """Train the proposed network; the last epoch's weights are kept for the test."""
    # The same order and augmentation for all rows: what is paired differs in the network alone.
    seed = lab.seed("training", key.proposal.draw, key.training)
    network = lab.start(_network(lab, key.proposal), seed)
    recipe = lab.recipe.trained_by.recipe(key.epochs, seed)
    result = train(
        network,
        lab.data.full_train,
        recipe,
        teacher=lab.teacher(recipe),
        checkpoint=Checkpoint(lab.work / lab.file("train", key), every_steps=EVERY_STEPS),
        progress=telling(tell),
        device=lab.device,
    )
    macs = _macs(lab, result.model)
    save(result.model, network_file(lab, key))
    forward = {macs: result.images_forward}
    forward[lab.macs] = forward.get(lab.macs, 0) + result.images_teacher
    cost = entry(
        "train",
        step_of(Train(key)),
        seconds=result.seconds,
        device=lab.device,
        forward=forward,
        backward={macs: result.images_backward},
    )
    history = tuple(row.metrics for row in epoch_rows("", result))
    training = Training(key, seed=seed, spent=spent_of(cost), history=history)
    return Trained(training=training, ledger=(cost,))


def test(lab: Lab, key: NetworkKey) -> Tested:
    """Accuracy on the test set, in float32, of a network that was proposed or trained.

    Called by the runner alone, after every proposal and training of the run is recorded.
    """
    accuracy, cost = _test(lab, _network(lab, key), str(key), Test(key))
    return Tested(key=key, test=accuracy, ledger=(cost,))


def test_dense(lab: Lab) -> TestedDense:
    """The same of the dense network."""
    accuracy, cost = _test(lab, lab.base, "the dense network", TestDense())
    return TestedDense(test=accuracy, ledger=(cost,))


def _test(
    lab: Lab, network: nn.Module, name: str, unit: Test | TestDense
) -> tuple[Accuracy, CostEntry]:
    found = lab.test_evaluator.accuracy(network, name=name)
    cost = entry(
        "test",
        step_of(unit),
        seconds=found.seconds,
        device=lab.device,
        forward={_macs(lab, network): found.n},
    )
    return Accuracy(found.correct, found.n), cost


def network_file(lab: Lab, key: NetworkKey) -> Path:
    """Where a network is kept until the run ends."""
    return lab.kept.file(lab.file("proposal" if isinstance(key, ProposalKey) else "trained", key))


def _network(lab: Lab, key: NetworkKey) -> nn.Module:
    return load(network_file(lab, key), model=lab.untrained)


def _macs(lab: Lab, network: nn.Module) -> float:
    """MACs of one image through a network cut from the base."""
    plan = plan_of(network)
    widths = plan.selection.widths if plan else lab.space.widths
    return float(lab.space.cost("macs")(widths))
