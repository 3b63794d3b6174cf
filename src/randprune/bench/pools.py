"""Random configurations of one network at several costs, each cut, repaired and judged alike.

What is known of the network is made once for all costs. Nothing is trained, and the test set stays
shut. Every candidate is recorded before the next one is begun; the same call goes on where it
stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from randprune.bench.configurations import Configuration
from randprune.cost import LATENCY, Budget, FloatArray
from randprune.errors import DataError, InvalidInputError
from randprune.evaluate.threads import decide, using
from randprune.jobs.candidates import Evaluations, Repaired
from randprune.jobs.controls import uniform_controls
from randprune.jobs.identity import run_key
from randprune.jobs.job import NOT_DECISIVE, Given, as_decided
from randprune.jobs.opening import images_of_recipe, network_of, task_of_recipe
from randprune.jobs.progress import Progress, Renamed, phase
from randprune.jobs.pruning import prepared_scores, repairing
from randprune.jobs.ranking import value_of
from randprune.jobs.session import Session
from randprune.jobs.traced import traced_session
from randprune.jobs.work_folder import WorkFolder
from randprune.recipe import PruneRecipe
from randprune.recovery.chain import quick_form
from randprune.store import (
    RANDOM_SEARCH,
    SEARCH_TOP1,
    SEARCHED,
    UNIFORM,
    Candidate,
    Run,
    Store,
)
from randprune.strategies import RandomSearch
from randprune.tasks import Metric


@dataclass(frozen=True, slots=True)
class Worth:
    """What one network is worth on the images that rank.

    Attributes:
        value: of what ranks, higher = better.
        score: the task's metric as a score: accuracy, for classes.
    """

    value: float
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Random configurations at one cost.

    Attributes:
        ratio: the share of the dense cost.
        values, scores: of those that could be evaluated, (N,); see `Worth`.
        uniform: uniform widths of this cost; None where they miss it or failed.
        given: the configurations that were asked for, in their order.
        metric: what scores are of.
    """

    ratio: float
    values: FloatArray
    scores: FloatArray
    uniform: Worth | None
    given: tuple[Worth, ...]
    metric: Metric

    def shown(self, score: float) -> str:
        """A score as people read it."""
        return self.metric.shown(self.metric.score(score))


@dataclass(slots=True, eq=False)
class Pools:
    """One network, ready to have configurations drawn from it; see `opened`."""

    session: Session
    store: Store
    recipe: PruneRecipe
    progress: Progress

    def ratio_of(self, configuration: Configuration) -> float:
        """The share of the dense cost that a configuration keeps.

        Raises:
            InvalidInputError: it is one of another network.
        """
        cost = self.session.space.cost(self.recipe.budget.metric)
        return float(cost(configuration.widths(self.session.space))) / cost.dense

    def dense(self) -> float:
        """The score of the dense network on the images that rank."""
        judge = self.session.quick_judge
        return self.session.task.metric.score(judge.dense_result(self.session.network).share)

    def check(self, ratio: float) -> None:
        """Raise an InfeasibleBudgetError where no configuration has this cost."""
        self._aim(ratio)
        self.session.check_reachable()

    def at(self, ratio: float, name: str, configurations: Sequence[Configuration] = ()) -> Pool:
        """`search.candidates` random configurations of this cost, and some that are given.

        Args:
            ratio: the share of the dense cost.
            name: what people call it while it goes on.
            configurations: of this cost.

        Raises:
            DataError: one of those given, or all random ones, could not be evaluated.
        """
        one, session = self._aim(ratio), self.session
        run = self.store.run(run_key(one, session, not_decisive=NOT_DECISIVE))
        session.ledger = run
        session.progress = Renamed(self.progress, name, name)
        with run:
            return self._pool(run, one, configurations)

    def _aim(self, ratio: float) -> PruneRecipe:
        """The recipe of random search at this cost; all of its candidates see all images."""
        recipe, budget = self.recipe, self.recipe.budget
        self.session.aim(Budget(budget.metric, ratio, budget.tolerance))
        search = recipe.search.model_copy(update={"strategy": "random", "race": False})
        at = budget.model_copy(update={"ratio": ratio, "ratios": None})
        return recipe.model_copy(update={"budget": at, "search": search})

    def _pool(self, run: Run, recipe: PruneRecipe, configurations: Sequence[Configuration]) -> Pool:
        session, count = self.session, recipe.search.candidates
        scores = prepared_scores(session, recipe)
        makers = repairing(session, scores, quick_form(recipe.recovery))
        own = [self._evaluations(makers[SEARCHED], c.name) for c in configurations]
        random = self._evaluations(makers[RANDOM_SEARCH], RANDOM_SEARCH)
        done = len(random.known) + sum(len(of.known) for of in own)
        total = count + len(own)
        text = f"{total} configurations"
        given: list[Worth] = []
        with session.phase("search", text, total=total, done=done) as running:
            for of, configuration in zip(own, configurations, strict=True):
                found = of.next(configuration.widths(session.space))
                if found.status != "ok":
                    raise DataError(f"{configuration.name!r} could not be evaluated: {found.error}")
                given.append(self._worth(found))
                running.at(max(running.done, len(given)))
            random.running = running
            rng = session.seeds.rng("search")
            strategy = RandomSearch(*session.limits)
            random.values(strategy.ask(session.space, session.budget, count, rng))
        sound = [self._worth(c) for c in random.found if c.status == "ok"]
        if not sound:
            reason = random.found[0].error
            raise DataError(f"All random configurations failed, the first with: {reason}")
        uniform = uniform_controls(session, run, makers)[UNIFORM]
        return Pool(
            recipe.budget.ratio,
            np.array([worth.value for worth in sound]),
            np.array([worth.score for worth in sound]),
            self._worth(uniform) if uniform.status == "ok" else None,
            tuple(given),
            session.task.metric,
        )

    def _evaluations(self, maker: Repaired, method: str) -> Evaluations:
        judge = self.session.quick_judge
        return Evaluations(self.session, maker, judge, Candidate(0, (), method), "search")

    def _worth(self, candidate: Candidate) -> Worth:
        value = value_of(candidate, self.session.rules.rank_by)
        return Worth(value, candidate.scores[SEARCH_TOP1])


@contextmanager
def opened(
    recipe: PruneRecipe, folder: Path, progress: Progress, device: str | None
) -> Iterator[Pools]:
    """The network and images of a recipe, traced; within the block configurations are drawn.

    Args:
        recipe: network, images, criterion, repair, `search.candidates` random configurations at
            each cost, limits on their widths, and the budget's metric and tolerance.
        folder: for records.
        progress: is told how far it is.
        device: where networks are evaluated.

    Raises:
        InvalidInputError: a budget of latency.
    """
    if recipe.budget.metric == LATENCY:
        raise InvalidInputError(
            "Random configurations are drawn at one exact cost, and latency is measured. "
            "Use the metric macs or params."
        )
    recipe = recipe.resolved()
    data, network = images_of_recipe(recipe), network_of(recipe.network)
    task = task_of_recipe(recipe, data)
    given = Given(network, data, folder, progress, None, device, task)
    with using(decide().count), Store.open(folder) as store:
        with phase(progress, "trace", "Tracing the network"):
            session = traced_session(recipe, given)
        recipe = as_decided(recipe, session)
        session.device = device
        digest = run_key(recipe, session, not_decisive=NOT_DECISIVE).digest
        session.work = WorkFolder(folder / "work" / f"pools-{digest}")
        yield Pools(session, store, recipe, progress)
        session.work.remove()
