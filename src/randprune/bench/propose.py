"""One proposal: the method chooses, the runner checks, cuts, verifies, repairs and judges."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from randprune.artifact import save
from randprune.bench.lab import Lab
from randprune.bench.meter import CountedSplit, Meter
from randprune.bench.methods.base import Limits, Task
from randprune.bench.recipe import RANDOM_CRITERION
from randprune.bench.records import PROPOSE, SCORES, Proposal
from randprune.bench.units import Outcome, Tell, Unit
from randprune.cost import FloatArray
from randprune.criteria import criteria
from randprune.errors import InvalidInputError, UnsupportedModelError
from randprune.graph.program import private_copy
from randprune.pipeline.candidates import (
    MINUS_KL,
    MINUS_LOSS,
    evaluate_candidate,
    make_candidate,
    scores_of,
    selection_hash,
    value_of,
)
from randprune.pipeline.finalists import TOLERANCE
from randprune.pipeline.recoveries import SENSITIVITY_IMAGES
from randprune.recovery import images_forward, needs_moments
from randprune.space import IntArray, Selection
from randprune.store import PROXY, Candidate
from randprune.surgery import cut, verify


def propose(lab: Lab, unit: Unit, tell: Tell) -> Outcome:
    """The proposal of one row at one draw; its network is kept for training and for the test."""
    bench = _Bench(lab, unit, tell)
    method = lab.recipe.method(unit.label)
    selection = method.propose(bench.task())
    _check_budget(lab, selection)
    small = cut(lab.model, lab.space, selection)
    if not lab.space.inexact:
        verify(lab.model, small, lab.space, selection, lab.example, tolerance=TOLERANCE)
    network = lab.recoveries.thorough(lab.recipe.recovery)(small, selection)
    bench.meter.look(
        bench.macs(selection.widths),
        images_forward(lab.recipe.recovery, len(lab.recoveries.calibration)),
    )
    cost = bench.meter.entry("propose", unit.key)
    quality = lab.exact_judge.quality(network, unit.key)
    scores = scores_of(quality)
    save(network, lab.kept.file(lab.file("proposal", unit.key)))
    widths = tuple(selection.widths.tolist())
    budget = lab.space.cost(lab.recipe.budget.metric)
    proposal = Proposal(
        row=unit.row,
        label=unit.label,
        method=lab.recipe.methods[unit.label].method or unit.label,
        criterion=unit.criterion,
        draw=unit.draw,
        widths=widths,
        selection=selection_hash(selection),
        chosen=_chosen(bench.candidates, widths),
        macs=bench.macs(selection.widths),
        params=sum(p.numel() for p in network.parameters()),
        ratio=float(budget(selection.widths)) / budget.dense,
        proxy=float(lab.proxy(selection.widths[None])[0]),
        search=quality.accuracy,
        minus_kl=scores[MINUS_KL],
        minus_loss=scores[MINUS_LOSS],
        spent={SCORES: lab.criterion_cost(unit.criterion), PROPOSE: bench.meter.spent(cost)},
    )
    return Outcome(
        proposal=proposal,
        candidates=tuple(bench.candidates),
        ledger=(cost,),
    )


@dataclass(slots=True, eq=False)
class _Bench:
    """Builds the task of one proposal, and counts what is done with it."""

    lab: Lab
    unit: Unit
    tell: Tell
    meter: Meter = field(init=False)
    scores: Sequence[Tensor] = field(init=False)
    candidates: list[Candidate] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.meter = Meter(self.lab.device)
        self.scores = self.lab.scores(self.unit.criterion, self.unit.draw)
        if needs_moments(self.lab.recipe.recovery):
            self._charge_moments()

    def macs(self, widths: IntArray) -> float:
        """MACs of one image at these widths."""
        return float(self.lab.space.cost("macs")(widths))

    def task(self) -> Task:
        """What the method gets."""
        lab, recipe = self.lab, self.lab.recipe
        data, dense = lab.data, lab.macs
        return Task(
            model=private_copy(lab.model),
            space=lab.space,
            budget=recipe.budget.budget(),
            limits=Limits(recipe.proposals.min_keep, recipe.proposals.round_to),
            scores=self.scores,
            criterion=self.unit.criterion,
            # All rows of a draw get the same numbers, so the same configurations.
            rng=np.random.default_rng(lab.seed("draw", self.unit.draw)),
            fit=CountedSplit(data.fit, self.meter, dense),
            calibration=CountedSplit(data.calibration, self.meter, dense),
            search=CountedSplit(lab.search, self.meter, dense),
            evaluate=self.evaluate,
            proxy=self.proxy,
            rescore=self.rescore,
            random_scores=lambda: lab.scores(RANDOM_CRITERION, self.unit.draw),
        )

    def evaluate(self, widths: IntArray) -> float:
        """Quality of one configuration after the quick repair, higher = better."""
        lab = self.lab
        widths = lab.space.check_widths(widths)
        repair = lab.recoveries.quick(lab.recipe.recovery)
        candidate = evaluate_candidate(
            lab.space,
            lab.quick_judge,
            lambda: make_candidate(lab.model, lab.space, self.scores, widths, repair),
            widths,
            index=len(self.candidates),
            method=self.unit.key,
        )
        if candidate.status == "ok":
            self.meter.look(candidate.costs["macs"], len(lab.search))
            predicted = float(lab.proxy(widths[None])[0])
            candidate = dataclasses.replace(
                candidate, scores={**candidate.scores, PROXY: predicted}
            )
        self.meter.candidates += 1
        self.candidates.append(candidate)
        self.tell(min(1.0, len(self.candidates) / self.unit.work))
        return value_of(candidate, lab.recipe.proposals.rank_by)

    def proxy(self, widths: IntArray) -> FloatArray:
        """Predicted quality of configurations (N, G), higher = better, (N,)."""
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
        small = cut(lab.model, lab.space, selection)
        small = lab.recoveries.quick(lab.recipe.recovery)(small, selection)
        space = lab.trace(small)
        wanted = [(g.name, w) for g, w in zip(lab.space.groups, selection.widths, strict=True)]
        if [(g.name, g.width) for g in space.groups] != wanted:
            raise UnsupportedModelError(
                f"The network cut to {selection.widths.tolist()} has other channel groups than the "
                "dense one, so its scores cannot be compared. Use a method that scores once."
            )
        needs = criteria.create(self.unit.criterion).needs
        if needs - {"weights"}:
            images = len(lab.recoveries.calibration)
            macs = self.macs(selection.widths)
            self.meter.look(macs, images, backward="gradients" in needs)
        return lab.scores_of(self.unit.criterion, small, space, self.unit.draw)


def _check_budget(lab: Lab, selection: Selection) -> None:
    lab.space.check_selection(selection)
    budget = lab.recipe.budget
    cost = lab.space.cost(budget.metric)
    ratio = float(cost(selection.widths)) / cost.dense
    if abs(ratio - budget.ratio) > budget.tolerance + 1e-9:
        raise InvalidInputError(
            f"The method proposed {ratio:.4f} of the {budget.metric}, outside the budget of "
            f"{budget.ratio:g}±{budget.tolerance:g}. A method's proposal must meet the budget."
        )


def _chosen(candidates: Sequence[Candidate], widths: tuple[int, ...]) -> int | None:
    """The first candidate with the proposed configuration."""
    return next((c.index for c in candidates if c.widths == widths), None)
