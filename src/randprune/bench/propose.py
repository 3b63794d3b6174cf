"""One proposal: the method chooses, the runner checks, cuts, verifies, finishes and judges."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor, nn

from randprune.artifact import save
from randprune.bench.keys import ProposalKey
from randprune.bench.lab import Lab
from randprune.bench.meter import CountedSplit, Meter
from randprune.bench.methods.base import Limits, Task
from randprune.bench.results import PROPOSE, Proposal, Spent
from randprune.bench.units import Propose, Proposed, step_of, work_of
from randprune.cost import Budget, FloatArray
from randprune.errors import InvalidInputError
from randprune.executors import Tell
from randprune.graph.program import private_copy
from randprune.jobs.candidates import MINUS_KL, MINUS_LOSS, scores_of, selection_hash, value_of
from randprune.jobs.finalists import TOLERANCE
from randprune.jobs.judge import Quality
from randprune.space import IntArray, Selection, Space
from randprune.store import Candidate, CostEntry
from randprune.surgery import cut, verify

L = TypeVar("L", bound=Lab)


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A proposed network as it is kept for training and for the test.

    Attributes:
        cost: of the proposal, an entry of the ledger.
        charged: what its row is charged besides, by stage.
        quality: on the search images; None where it was not looked at.
        proxy: its predicted quality, where there is a prediction.
    """

    network: nn.Module
    cost: CostEntry
    charged: Mapping[str, Spent]
    quality: Quality | None = None
    proxy: float | None = None


class Bench(ABC, Generic[L]):
    """Builds the task of one proposal, and counts what is done with it."""

    def __init__(self, lab: L, key: ProposalKey, tell: Tell) -> None:
        self.lab = lab
        self.key = key
        self.tell = tell
        self.meter = Meter(lab.device)
        self.candidates: list[Candidate] = []
        self._work = work_of(lab.recipe, Propose(key))

    # -- what a setting decides ----------------------------------------------------------------

    @abstractmethod
    def scores(self) -> Sequence[Tensor]:
        """What ranks the channels, one (width,) tensor a group, higher = keep."""

    @abstractmethod
    def random_scores(self) -> Sequence[Tensor]:
        """See `Task.random_scores`."""

    @property
    def step(self) -> str:
        """The key of its costs in the ledger."""
        return step_of(Propose(self.key))

    @abstractmethod
    def candidate(self, widths: IntArray, index: int) -> Candidate:
        """One configuration, made and evaluated on the search images; what it took is counted."""

    @abstractmethod
    def proxy(self, widths: IntArray) -> FloatArray:
        """See `Task.proxy`."""

    @abstractmethod
    def rescore(self, selection: Selection) -> list[Tensor]:
        """See `Task.rescore`."""

    @abstractmethod
    def finish(self, small: nn.Module, selection: Selection) -> Made:
        """What is kept of the cut network."""

    def uniform_of(self) -> tuple[Space, Budget]:
        """The space and the budget that uniform widths are taken in."""
        return self.lab.space, self.lab.budget

    # -- common --------------------------------------------------------------------------------

    def propose(self) -> Selection:
        """What the row's method chooses.

        Raises:
            InvalidInputError: it is outside the budget, or no selection of the space.
        """
        selection = self.lab.recipe.method(self.key.row.label).propose(self.task())
        _check_budget(self.lab, selection)
        return selection

    def macs(self, widths: IntArray) -> float:
        """MACs of one image at these widths."""
        return float(self.lab.space.cost("macs")(widths))

    def task(self) -> Task:
        """What the method gets."""
        lab = self.lab
        data, macs = lab.data, lab.space.cost("macs").dense
        return Task(
            model=private_copy(lab.base),
            space=lab.space,
            budget=lab.budget,
            limits=Limits(*lab.limits),
            scores=self.scores(),
            criterion=self.key.row.criterion,
            # All rows of a draw get the same numbers, so the same configurations.
            rng=np.random.default_rng(lab.seed("draw", self.key.draw)),
            fit=CountedSplit(data.fit, self.meter, macs),
            calibration=CountedSplit(data.calibration, self.meter, macs),
            search=CountedSplit(lab.search, self.meter, macs),
            evaluate=self.evaluate,
            proxy=self.proxy,
            rescore=self.rescore,
            random_scores=self.random_scores,
            uniform_of=self.uniform_of(),
        )

    def evaluate(self, widths: IntArray) -> float:
        """Quality of one configuration, higher = better; recorded as a candidate."""
        widths = self.lab.space.check_widths(widths)
        found = dataclasses.replace(
            self.candidate(widths, len(self.candidates)),
            method=self.key.row.label,
            criterion=self.key.row.criterion,
            draw=self.key.draw,
        )
        self.meter.candidates += 1
        self.candidates.append(found)
        self.tell(min(1.0, len(self.candidates) / self._work))
        return value_of(found, self.lab.recipe.proposals.rank_by)


def propose(lab: Lab, key: ProposalKey, tell: Tell) -> Proposed:
    """The proposal of one row at one draw; its network is kept for training and for the test."""
    bench = lab.bench(key, tell)
    selection = bench.propose()
    small = cut(lab.base, lab.space, selection)
    if not lab.space.inexact:
        verify(lab.base, small, lab.space, selection, lab.example, tolerance=TOLERANCE)
    made = bench.finish(small, selection)
    save(made.network, lab.kept.file(lab.file("proposal", key)))
    widths = tuple(selection.widths.tolist())
    scores = {} if made.quality is None else scores_of(made.quality)
    proposal = Proposal(
        key=key,
        method=lab.recipe.method_name(key.row.label),
        widths=widths,
        selection=selection_hash(selection),
        chosen=_chosen(bench.candidates, widths),
        macs=bench.macs(selection.widths),
        params=sum(p.numel() for p in made.network.parameters()),
        ratio=lab.ratio(selection.widths),
        proxy=made.proxy,
        search=None if made.quality is None else made.quality.accuracy,
        minus_kl=scores.get(MINUS_KL),
        minus_loss=scores.get(MINUS_LOSS),
        spent={**made.charged, PROPOSE: bench.meter.spent(made.cost)},
    )
    return Proposed(proposal=proposal, candidates=tuple(bench.candidates), ledger=(made.cost,))


def _check_budget(lab: Lab, selection: Selection) -> None:
    lab.space.check_selection(selection)
    budget, ratio = lab.recipe.budget, lab.ratio(selection.widths)
    if abs(ratio - budget.ratio) > budget.tolerance + 1e-9:
        raise InvalidInputError(
            f"The method proposed {ratio:.4f} of the {budget.metric}, outside the budget of "
            f"{budget.ratio:g}±{budget.tolerance:g}. A method's proposal must meet the budget."
        )


def _chosen(candidates: Sequence[Candidate], widths: tuple[int, ...]) -> int | None:
    """The first candidate with the proposed configuration."""
    return next((c.index for c in candidates if c.widths == widths), None)
