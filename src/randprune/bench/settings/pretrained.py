"""The setting of trained networks: criteria rank the channels, and what is cut is repaired."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import safetensors.torch
from torch import Tensor, nn

from randprune.bench.keys import RANDOM_CRITERION, ProposalKey
from randprune.bench.lab import Lab
from randprune.bench.propose import Bench, Made
from randprune.bench.results import SCORES, Spent
from randprune.bench.settings.scoring import prepare
from randprune.bench.units import Prepared
from randprune.cost import Budget, FloatArray
from randprune.criteria import Random, criteria, score
from randprune.errors import InvalidInputError, UnsupportedModelError
from randprune.executors import Tell
from randprune.jobs.candidates import evaluate_candidate, make_candidate
from randprune.jobs.judge import Judge
from randprune.jobs.outputs import check_outputs
from randprune.jobs.recoveries import SENSITIVITY_IMAGES, Recoveries
from randprune.recovery import images_forward, needs_moments
from randprune.search.proxy import check_tables, proxy_errors
from randprune.space import IntArray, Selection, Space
from randprune.store import PROXY, Candidate
from randprune.surgery import cut
from randprune.training import Teacher, TrainRecipe
from randprune.zoo.data import in_memory


class PretrainedLab(Lab):
    """The trained dense network, its statistics, and all criteria's scores."""

    tests_untrained: ClassVar[bool] = True
    trainings: ClassVar[str] = "fine-tunings"
    preparing = "Scoring with all criteria"

    @cached_property
    def base(self) -> nn.Module:
        """The trained dense network, in evaluation mode."""
        if self.recipe.pretrain is None:
            check_outputs(self.untrained, self.data, self.example)
            return self.untrained
        model = self.untrained
        model.load_state_dict(safetensors.torch.load_file(self.kept.file("dense")))
        return model

    @property
    def unprepared(self) -> nn.Module:
        """The dense network as it is given."""
        return self.untrained

    @property
    def space(self) -> Space:
        """The channel groups of the dense network."""
        return self.original

    @property
    def budget(self) -> Budget:
        """The recipe's."""
        return self.recipe.budget.budget()

    def prepare(self, tell: Tell) -> Prepared:
        """See `Lab`."""
        return prepare(self, tell)

    def bench(self, key: ProposalKey, tell: Tell) -> PretrainedBench:
        """See `Lab`."""
        return PretrainedBench(self, key, tell)

    def teacher(self, recipe: TrainRecipe) -> Teacher | None:
        """The dense network, where the recipe distils from it."""
        return Teacher(self.base, precision=recipe.precision) if recipe.distill_weight else None

    def judge(self, precision: str) -> Judge:
        """Measures networks on the search images, beside the dense network's outputs."""
        evaluator = self.evaluator(self.search, precision)
        kept = self.kept.tensors(
            f"logits-{precision}",
            lambda: {"logits": evaluator.logits(self.base, name="the dense network")},
        )
        return Judge(evaluator, kept["logits"])

    # -- statistics and scores -----------------------------------------------------------------

    @cached_property
    def recoveries(self) -> Recoveries:
        """Builds repairs from statistics of the dense network."""
        return Recoveries(
            model=self.base,
            space=self.space,
            calibration=in_memory(self.data.calibration),
            kept=self.kept,
            seed=self.seed("moments"),
            spend=self.ledger.append,
            device=self.device,
        )

    @cached_property
    def all_scores(self) -> Mapping[str, Tensor]:
        """The scores that the preparation made, as "criterion/group number"."""
        return safetensors.torch.load_file(self.kept.file("scores"))

    def scores(self, criterion: str, draw: int) -> list[Tensor]:
        """A criterion's scores, one (width,) tensor a group; random ones differ between draws."""
        if criterion == RANDOM_CRITERION:
            return score(self.base, self.space, Random(), seed=self.seed("channels", draw))
        if (failure := self.document("failed").get(criterion)) is not None:
            raise InvalidInputError(f"The criterion {criterion!r} failed. {failure}")
        return [self.all_scores[f"{criterion}/{g:05d}"] for g in range(len(self.space))]

    def scores_of(self, criterion: str, model: nn.Module, space: Space, draw: int) -> list[Tensor]:
        """The scores of another network, such as one that was cut from the dense one."""
        seed = self.seed("channels", draw, *space.widths.tolist())
        chosen = criteria.create(criterion)
        return score(model, space, chosen, self.recoveries.calibration, seed=seed)

    def criterion_cost(self, criterion: str) -> Spent:
        """What the criterion's scores cost, as if no other criterion shared its passes."""
        return Spent(**self.document("costs")[criterion])

    @cached_property
    def tables(self) -> Sequence[Any]:
        """What each width of each group costs at the outputs, (width + 1,) a group."""
        return check_tables(self.space, self.recoveries.tables())

    def proxy(self, widths: IntArray) -> Any:
        """Predicted quality of configurations (N, G), higher = better, (N,)."""
        return -proxy_errors(self.tables, np.asarray(widths))


class PretrainedBench(Bench[PretrainedLab]):
    """Candidates are cut by the row's criterion and repaired."""

    def __init__(self, lab: PretrainedLab, key: ProposalKey, tell: Tell) -> None:
        super().__init__(lab, key, tell)
        self._scores = lab.scores(key.row.criterion, key.draw)
        if needs_moments(lab.recipe.recovery):
            self._charge_moments()

    def scores(self) -> Sequence[Tensor]:
        """Of the row's criterion."""
        return self._scores

    def random_scores(self) -> Sequence[Tensor]:
        """Of the draw."""
        return self.lab.scores(RANDOM_CRITERION, self.key.draw)

    def candidate(self, widths: IntArray, index: int) -> Candidate:
        """One configuration after the quick repair."""
        lab = self.lab
        repair = lab.recoveries.quick(lab.recipe.recovery)
        found = evaluate_candidate(
            lab.space,
            lab.quick_judge,
            lambda: make_candidate(lab.base, lab.space, self._scores, widths, repair),
            widths,
            index=index,
            method=self.key.row.label,
        )
        if found.status != "ok":
            return found
        self.meter.look(found.costs["macs"], len(lab.search))
        predicted = float(lab.proxy(widths[None])[0])
        return dataclasses.replace(found, scores={**found.scores, PROXY: predicted})

    def proxy(self, widths: IntArray) -> FloatArray:
        """Predicted from the tables of all groups."""
        lab = self.lab
        self._charge_moments()
        images = min(SENSITIVITY_IMAGES, len(lab.recoveries.calibration))
        self.meter.charge("tables", lab.macs, images * len(lab.space))
        found: FloatArray = lab.proxy(widths)
        return found

    def _charge_moments(self) -> None:
        self.meter.charge("moments", self.lab.macs, len(self.lab.recoveries.calibration))

    def rescore(self, selection: Selection) -> list[Tensor]:
        """The row's criterion on the network that is cut accordingly and repaired."""
        lab = self.lab
        small = cut(lab.base, lab.space, selection)
        small = lab.recoveries.quick(lab.recipe.recovery)(small, selection)
        space = lab.trace(small)
        wanted = [(g.name, w) for g, w in zip(lab.space.groups, selection.widths, strict=True)]
        if [(g.name, g.width) for g in space.groups] != wanted:
            raise UnsupportedModelError(
                f"The network cut to {selection.widths.tolist()} has other channel groups than the "
                "dense one, so its scores cannot be compared. Use a method that scores once."
            )
        needs = criteria.create(self.key.row.criterion).needs
        if needs - {"weights"}:
            images = len(lab.recoveries.calibration)
            macs = self.macs(selection.widths)
            self.meter.look(macs, images, backward="gradients" in needs)
        return lab.scores_of(self.key.row.criterion, small, space, self.key.draw)

    def finish(self, small: nn.Module, selection: Selection) -> Made:
        """The thorough repair."""
        lab = self.lab
        network = lab.recoveries.thorough(lab.recipe.recovery)(small, selection)
        images = images_forward(lab.recipe.recovery, len(lab.recoveries.calibration))
        self.meter.look(self.macs(selection.widths), images)
        cost = self.meter.entry("propose", self.step)
        return Made(
            network,
            cost,
            {SCORES: lab.criterion_cost(self.key.row.criterion)},
            lab.exact_judge.quality(network, str(self.key)),
            float(lab.proxy(selection.widths[None])[0]),
        )
