"""The setting without a trained network: widths are searched with shared weights, then trained.

The space is that of the widened network; the dense network is one of its configurations. Every
network keeps the first channels of each group, and is trained from random weights that its training
seed draws. What shared weights say of a configuration is its score on the search images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from randprune.artifact import load, save
from randprune.bench.keys import ProposalKey
from randprune.bench.lab import Lab
from randprune.bench.meter import spent_of
from randprune.bench.once import train_once
from randprune.bench.propose import Bench, Made
from randprune.bench.records import DENSE, DenseRecord
from randprune.bench.results import SHARED, Spent
from randprune.bench.units import Prepared
from randprune.cost import Budget, FloatArray
from randprune.errors import InvalidInputError
from randprune.executors import Tell
from randprune.graph.program import in_mode
from randprune.jobs.candidates import evaluate_candidate
from randprune.jobs.shared import SharedTraining, Slices, shared_of
from randprune.jobs.widened import widened
from randprune.lineage import WidenStep
from randprune.space import IntArray, Selection, Space
from randprune.store import Candidate, CostEntry
from randprune.supernet import first_channels, initialise
from randprune.widening import wide_budget, widening_of
from randprune.zoo.data import in_memory
from randprune.zoo.weights import weights_hash

_SUPERNET = "supernet"
"""The ledger's phase and key of the shared weights, as in a job from scratch."""
_SHARED = "shared"


class ScratchLab(Lab):
    """The widened network, and its trained shared weights."""

    tests_untrained: ClassVar[bool] = False
    trainings: ClassVar[str] = "trainings from random weights"

    @property
    def preparing(self) -> str:
        """Names the epochs."""
        epochs = self.recipe.shared_by.epochs
        return f"Training shared weights for {epochs} {'epoch' if epochs == 1 else 'epochs'}"

    def build(self) -> nn.Module:
        """The dense network with random weights, drawn as everywhere from scratch."""
        return initialise(super().build(), self.seed("initial weights"))

    @cached_property
    def base(self) -> nn.Module:
        """The widened network with random weights."""
        section = self.recipe.widened_by
        return in_mode(widened(self.untrained, self.original, section, self.seed("wide")))

    @property
    def unprepared(self) -> nn.Module:
        """It needs no preparation."""
        return self.base

    @property
    def widening(self) -> WidenStep:
        """How the dense network was widened."""
        return widening_of(self.base)

    @property
    def space(self) -> Space:
        """The channel groups of the widened network."""
        return self.widening.wide

    @property
    def budget(self) -> Budget:
        """The recipe's, which refers to the dense network, as one of the widened network."""
        return wide_budget(self.widening, self.recipe.budget.budget())

    @property
    def notes(self) -> tuple[str, ...]:
        """Which groups could not be widened, and why."""
        stayed = self.widening.stayed.items()
        return tuple(f"Group {name} keeps its width: {why}" for name, why in stayed)

    @cached_property
    def asked(self) -> SharedTraining:
        """How the shared weights are trained."""
        return SharedTraining.of(
            self.recipe.shared_by, self.space, self.budget, self.limits, self.seed
        )

    @cached_property
    def slices(self) -> Slices:
        """Makes candidates of the trained shared weights."""
        shared = load(self.kept.file(_SHARED), model=self.untrained)
        return Slices(shared, self.space, in_memory(self.data.calibration), self.device)

    @property
    def shared_cost(self) -> Spent:
        """What the shared weights cost."""
        return spent_of(CostEntry(**self.document(_SUPERNET)["cost"]))

    def prepare(self, tell: Tell) -> Prepared:
        """Train the shared weights."""
        file = self.kept.file(_SHARED)
        cost, epochs = train_once(
            self,
            _SUPERNET,
            lambda: self.asked.start(self.base, self.seed(_SUPERNET)),
            self.data.fit,
            self.asked.recipe,
            self.asked.macs,
            lambda trained: save(shared_of(trained), file),
            tell,
            step=self.asked.step,
        )
        _ = self.exact_judge, self.quick_judge
        return Prepared(
            weights_hash=weights_hash(self.slices.shared),
            dense=DenseRecord(macs=self.macs, params=int(self.original.cost("params").dense)),
            epochs=epochs,
            ledger=(cost,),
        )

    def bench(self, key: ProposalKey, tell: Tell) -> ScratchBench:
        """See `Lab`."""
        return ScratchBench(self, key, tell)

    def start(self, network: nn.Module, seed: int) -> nn.Module:
        """The same network with random weights of this seed."""
        return initialise(network, seed)


class ScratchBench(Bench[ScratchLab]):
    """Candidates are slices of the shared weights."""

    def propose(self) -> Selection:
        """The first channels at the widths that the method proposes, or at the dense network's."""
        space = self.lab.space
        if self.key.row.label == DENSE:
            return first_channels(space, self.lab.original.widths)
        return first_channels(space, super().propose().widths)

    def scores(self) -> Sequence[Tensor]:
        """The first channels are the best ones."""
        return [-torch.arange(group.width, dtype=torch.float32) for group in self.lab.space.groups]

    def random_scores(self) -> Sequence[Tensor]:
        """There is nothing to choose: the same as all scores."""
        return self.scores()

    def uniform_of(self) -> tuple[Space, Budget]:
        """Uniform widths are those of the dense network."""
        return self.lab.original, self.lab.recipe.budget.budget()

    def candidate(self, widths: IntArray, index: int) -> Candidate:
        """One configuration with shared weights and batch-norm statistics of its own."""
        lab = self.lab
        found = evaluate_candidate(
            lab.space,
            lab.quick_judge,
            lambda: lab.slices.make(widths),
            widths,
            index=index,
            method=self.key.row.label,
        )
        if found.status == "ok":
            images = len(lab.slices.calibration) + len(lab.search)
            self.meter.look(found.costs["macs"], images)
        return found

    def proxy(self, widths: IntArray) -> FloatArray:
        """Not without a trained network."""
        raise InvalidInputError(
            "Nothing predicts configurations from scratch: there is no trained network to make "
            "tables of. Use task.evaluate, or a benchmark of the setting 'pretrained'."
        )

    def rescore(self, selection: Selection) -> list[Tensor]:
        """Not without a criterion."""
        raise InvalidInputError(
            "Channels are not scored from scratch: every network keeps the first ones of each "
            "group. Use task.evaluate, or a benchmark of the setting 'pretrained'."
        )

    def finish(self, small: nn.Module, selection: Selection) -> Made:
        """The untrained network, with what the shared weights say of it.

        The training of the shared weights is charged to who compared configurations with them;
        what they say of a single one decides nothing.
        """
        lab = self.lab
        cost = self.meter.entry("propose", self.step)
        if self.key.row.label == DENSE:
            return Made(small, cost, {})
        charged = {SHARED: lab.shared_cost} if len(self.candidates) > 1 else {}
        alone = lab.slices.make(selection.widths).network
        return Made(small, cost, charged, lab.exact_judge.quality(alone, str(self.key)))
