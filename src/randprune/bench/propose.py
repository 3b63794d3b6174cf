"""One proposal: the method chooses, the runner checks, cuts, verifies, finishes and judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from randprune.bench.finish import network_name
from randprune.bench.keys import RANDOM_CRITERION, ProposalKey
from randprune.bench.meter import CountedSplit, Meter
from randprune.bench.methods.base import Limits, Task
from randprune.bench.records import DENSE
from randprune.bench.results import PROPOSE, Proposal
from randprune.bench.settings.base import BenchJob
from randprune.bench.units import Propose, Proposed, step_of, work_of
from randprune.cost import FloatArray
from randprune.errors import InvalidInputError
from randprune.executors import Tell
from randprune.graph.program import private_copy
from randprune.jobs.candidates import Evaluations, selection_hash
from randprune.jobs.finalists import TOLERANCE
from randprune.jobs.progress import Silent
from randprune.jobs.ranking import MINUS_KL, MINUS_LOSS, scores_of, value_of
from randprune.space import IntArray, Selection
from randprune.store import Candidate
from randprune.surgery import cut, verify
from randprune.zoo.splits import labelled


def propose(job: BenchJob, key: ProposalKey, tell: Tell) -> Proposed:
    """The proposal of one row at one draw; its network is kept for training and for the test."""
    session, meter = job.session, Meter(job.device)
    network, space = session.network, session.space
    with session.writing(meter.ledger, Silent()):
        selection = _chosen(job, key, meter, tell)
        small = cut(network, space, selection)
        if not space.inexact:
            verify(network, small, space, selection, session.example, tolerance=TOLERANCE)
        found = job.finished(key, small, selection, meter)
    session.work.keep_network(network_name(key), found.network)
    cost = meter.entry("propose", step_of(Propose(key)))
    candidates = meter.ledger.candidates()
    widths = tuple(selection.widths.tolist())
    quality = found.quality
    scores = {} if quality is None else scores_of(quality)
    predict = job.predict
    proposal = Proposal(
        key,
        job.recipe.method_name(key.row.label),
        widths=widths,
        selection=selection_hash(selection),
        chosen=next((c.index for c in candidates if c.widths == widths), None),
        macs=session.macs(selection.widths),
        params=sum(p.numel() for p in found.network.parameters()),
        ratio=session.ratio(selection.widths),
        proxy=None if predict is None else float(predict(selection.widths[None])[0]),
        search=None if quality is None else quality.accuracy,
        minus_kl=scores.get(MINUS_KL),
        minus_loss=scores.get(MINUS_LOSS),
        spent={**found.charged, PROPOSE: meter.spent(cost)},
    )
    return Proposed(proposal=proposal, candidates=candidates, ledger=(cost,))


def _chosen(job: BenchJob, key: ProposalKey, meter: Meter, tell: Tell) -> Selection:
    """What the row's method chooses, or what the dense network keeps.

    Raises:
        InvalidInputError: it is outside the budget, or no selection of the space.
    """
    if key.row.label == DENSE:
        return job.chosen(job.session.original.space.dense)
    selection = job.recipe.method(key.row.label).propose(_Row(job, key, meter, tell).task())
    job.session.space.check_selection(selection)
    budget, ratio = job.session.original.budget, job.session.ratio(selection.widths)
    if abs(ratio - budget.ratio) > budget.tolerance + 1e-9:
        raise InvalidInputError(
            f"The method proposed {ratio:.4f} of the {budget.metric}, outside the budget of "
            f"{budget.ratio:g}±{budget.tolerance:g}. A method's proposal must meet the budget."
        )
    return job.chosen(selection)


class _Row:
    """What a row's method may ask for, counted."""

    def __init__(self, job: BenchJob, key: ProposalKey, meter: Meter, tell: Tell) -> None:
        self.job = job
        self.key = key
        self.meter = meter
        self.tell = tell
        self.work = work_of(job.recipe, Propose(key))
        self.scores = job.scores(key.row.criterion, key.draw)
        job.charge(meter, predicted=False)
        session = job.session
        self.evaluations = Evaluations(
            session,
            job.maker(self.scores),
            session.quick_judge,
            Candidate(0, (), key.row.label, criterion=key.row.criterion, draw=key.draw),
            "propose",
            job.predict,
        )

    def task(self) -> Task:
        """What the method gets."""
        session, meter = self.job.session, self.meter
        data, macs, original = session.data, session.macs(), session.original
        return Task(
            model=private_copy(session.network),
            space=session.space,
            budget=session.budget,
            limits=Limits(*session.limits),
            scores=self.scores,
            criterion=self.key.row.criterion,
            # All rows of a draw get the same numbers, so the same configurations.
            rng=session.seeds.rng("draw", self.key.draw),
            fit=CountedSplit(labelled(data.fit), meter, macs),
            calibration=CountedSplit(labelled(data.calibration), meter, macs),
            search=CountedSplit(labelled(session.search_images), meter, macs),
            evaluate=self.evaluate,
            tables=self.tables,
            proxy=self.proxy,
            rescore=self.rescore,
            random_scores=self.random_scores,
            uniform_of=(original.space, original.budget),
        )

    def evaluate(self, widths: IntArray) -> float:
        """Quality of one configuration, higher = better; recorded as a candidate."""
        session = self.job.session
        found = self.evaluations.next(session.space.check_widths(widths))
        self.tell(min(1.0, len(self.evaluations.found) / self.work))
        return value_of(found, session.rules.rank_by)

    def tables(self) -> Sequence[FloatArray]:
        """See `Task.tables`."""
        self._predicting()
        return self.job.session.tables()

    def proxy(self, widths: IntArray) -> FloatArray:
        """See `Task.proxy`."""
        return self._predicting()(widths)

    def _predicting(self) -> Callable[[IntArray], FloatArray]:
        """What predicts, charged to the row."""
        predict = self.job.predict
        if predict is None:
            raise InvalidInputError(
                "Nothing predicts configurations from scratch: there is no trained network to make "
                "tables of. Use task.evaluate, or a benchmark of the setting 'pretrained'."
            )
        self.job.charge(self.meter, predicted=True)
        return predict

    def rescore(self, selection: Selection) -> list[Tensor]:
        """See `Task.rescore`."""
        return self.job.rescored(self.key, selection, self.meter)

    def random_scores(self) -> Sequence[Tensor]:
        """See `Task.random_scores`."""
        return self.job.scores(RANDOM_CRITERION, self.key.draw)
