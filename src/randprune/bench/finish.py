"""Training of one proposed network, and the final evaluation on the test set."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import nn

from randprune.bench.keys import NetworkKey, ProposalKey, TrainingKey
from randprune.bench.meter import spent_of
from randprune.bench.results import Training
from randprune.bench.settings.base import BenchJob
from randprune.bench.units import Test, TestDense, Tested, TestedDense, Train, Trained, step_of
from randprune.errors import ArtifactError
from randprune.executors import Tell
from randprune.jobs.ledger import Gathered, cost_entry
from randprune.jobs.train import NamedTraining, trained
from randprune.jobs.work_folder import name_of
from randprune.lineage import plan_of
from randprune.store import Accuracy, CostEntry


def train_proposed(job: BenchJob, key: TrainingKey, tell: Tell) -> Trained:
    """Train the proposed network; the last epoch's weights are kept for the test."""
    session, ledger = job.session, Gathered()
    # The same order and augmentation for all rows: what is paired differs in the network alone.
    seed = session.seeds.seed("training", key.proposal.draw, key.training)
    network = _network(job, key.proposal)
    recipe = job.recipe.trained_by.recipe(key.epochs, seed)
    training = NamedTraining(
        name=network_name(key),
        label=str(key),
        text=f"Training {key}",
        phase="train",
        key=step_of(Train(key)),
        recipe=recipe,
        macs=_macs(job, network),
        teacher=job.teacher(recipe),
        teacher_macs=session.original.space.cost("macs").dense,
    )
    with session.writing(ledger, ShareOfUnit(tell)):
        start = partial(job.start, network, seed)
        trained(session, training, start, session.data.full_train)
    (cost,) = ledger.costs
    history = tuple(row.metrics for row in ledger.epochs)
    record = Training(key, seed=seed, spent=spent_of(cost), history=history)
    return Trained(training=record, ledger=(cost,))


class ShareOfUnit:
    """Progress as the share of one unit that is done."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._total = 1

    def start(self, phase: str, total: int, done: int, text: str) -> None:
        """A phase begins."""
        self._total = total

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        """Steps are complete."""
        self._tell(done / self._total)

    def finish(self, phase: str) -> None:
        """The phase is complete."""


def test(job: BenchJob, key: NetworkKey) -> Tested:
    """Accuracy on the test set, in float32, of a network that was proposed or trained.

    Called by the runner alone, after every proposal and training of the run is recorded.
    """
    accuracy, cost = _test(job, _network(job, key), str(key), Test(key))
    return Tested(key=key, test=accuracy, ledger=(cost,))


def test_dense(job: BenchJob) -> TestedDense:
    """The same of the dense network."""
    accuracy, cost = _test(job, job.session.network, "the dense network", TestDense())
    return TestedDense(test=accuracy, ledger=(cost,))


def _test(
    job: BenchJob, network: nn.Module, name: str, unit: Test | TestDense
) -> tuple[Accuracy, CostEntry]:
    job.unseal()
    evaluator = job.session.test_evaluator(f"final numbers of {job.recipe.title}")
    found = evaluator.accuracy(network, name=name)
    forward = {_macs(job, network): found.n}
    cost = cost_entry(
        "test", step_of(unit), seconds=found.seconds, device=job.device, forward=forward
    )
    return Accuracy(found.correct, found.n), cost


def network_name(key: NetworkKey) -> str:
    """The name under which a network is kept until the run ends."""
    return name_of("proposal" if isinstance(key, ProposalKey) else "trained", str(key))


def network_file(job: BenchJob, key: NetworkKey) -> Path:
    """Where a network is kept until the run ends."""
    return job.session.work.file(network_name(key))


def _network(job: BenchJob, key: NetworkKey) -> nn.Module:
    found = job.session.work.network(network_name(key), job.session.original.network)
    if found is None:
        raise ArtifactError(
            f"The network {key} is gone from {network_file(job, key)}, or its file is damaged. "
            "Run the benchmark again: it makes the network once more."
        )
    return found


def _macs(job: BenchJob, network: nn.Module) -> float:
    """MACs of one image through a network cut from the session's."""
    plan = plan_of(network)
    return job.session.macs(plan.selection.widths if plan else None)
