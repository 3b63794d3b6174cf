"""Where a configuration lies among random ones: does it beat them, all else being equal?

For each configuration, random ones of the same cost are drawn; all are cut from the same trained
network, with channels ranked by the same criterion, repaired alike and judged on the same images.
Nothing is trained, and the test set stays shut: what is compared is what a search would see.
(The question of Li et al., "Revisiting random channel pruning", CVPR 2022, put to configurations
that others have published.)

Every candidate is recorded before the next one is begun; the same call goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from randprune.bench.configurations import Configuration
from randprune.cost import Budget, FloatArray
from randprune.errors import DataError, InvalidInputError
from randprune.evaluate.threads import decide, using
from randprune.jobs.candidates import Evaluations
from randprune.jobs.controls import uniform_controls
from randprune.jobs.identity import run_key
from randprune.jobs.job import NOT_DECISIVE, Given, as_decided
from randprune.jobs.opening import images_of_recipe, network_of, task_of_recipe
from randprune.jobs.progress import Progress, Renamed, Silent, phase
from randprune.jobs.pruning import prepared_scores, repairing, traced_session
from randprune.jobs.ranking import value_of
from randprune.jobs.session import Session
from randprune.jobs.work_folder import WorkFolder
from randprune.recipe import PruneRecipe
from randprune.recovery.chain import quick_form
from randprune.store import (
    RANDOM_SEARCH,
    SEARCH_TOP1,
    SEARCHED,
    UNIFORM,
    Accuracy,
    Candidate,
    Run,
    Store,
)
from randprune.strategies import RandomSearch


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A configuration among random ones of its cost.

    Attributes:
        configuration: as it was given.
        ratio: share of the dense cost that it keeps, in the recipe's metric.
        value: what it is worth, higher = better; of what `rank_by` of the recipe says.
        accuracy: the task's metric on the images that rank.
        random, random_accuracy: those of the random ones that could be evaluated, (N,).
        uniform: what uniform widths of the same cost are worth; None where they miss it.
    """

    configuration: Configuration
    ratio: float
    value: float
    accuracy: float
    random: FloatArray
    random_accuracy: FloatArray
    uniform: float | None

    @property
    def beaten(self) -> int:
        """How many random ones are worth less."""
        return int((self.random < self.value).sum())

    @property
    def share(self) -> float:
        """Of random ones that are worth less."""
        return self.beaten / len(self.random)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share among all random ones, 95 % (Wilson)."""
        return Accuracy(self.beaten, len(self.random)).interval()


def place(
    recipe: PruneRecipe,
    configurations: Sequence[Configuration],
    folder: Path,
    *,
    progress: Progress | None = None,
    device: str | None = None,
) -> Iterator[Placed]:
    """Place configurations one after the other; each is yielded when it is known.

    Args:
        recipe: the network, the images, criterion, repair, `search.candidates` random ones a
            configuration, limits on their widths, and the budget's metric and tolerance; its ratio
            is each configuration's own, and its strategy is random search.
        configurations: of this network.
        folder: for records.
        progress: is told how far it is.
        device: where networks are evaluated.

    Raises:
        InvalidInputError: a configuration of another network, or one that cuts nothing.
        InfeasibleBudgetError: no random configuration has a configuration's cost.
        DataError: a configuration, or all random ones, could not be evaluated.
    """
    recipe = recipe.resolved()
    data, network = images_of_recipe(recipe), network_of(recipe.network)
    shown = progress or Silent()
    task = task_of_recipe(recipe, data)
    given = Given(network, data, folder, shown, None, device, task)
    with using(decide().count), Store.open(folder) as store:
        with phase(shown, "trace", "Tracing the network"):
            session = traced_session(recipe, given)
        recipe = as_decided(recipe, session)
        cost = session.space.cost(recipe.budget.metric)
        asked: list[tuple[Configuration, PruneRecipe]] = []
        for configuration in configurations:
            ratio = float(cost(configuration.widths(session.space))) / cost.dense
            if not ratio < 1.0:
                raise InvalidInputError(
                    f"The configuration {configuration.name!r} cuts nothing from this network."
                )
            asked.append((configuration, _at(recipe, ratio)))
            session.aim(Budget(recipe.budget.metric, ratio, recipe.budget.tolerance))
            session.check_reachable()
        session.device = device
        digest = run_key(recipe, session, not_decisive=NOT_DECISIVE).digest
        session.work = WorkFolder(folder / "work" / f"placing-{digest}")
        for number, (configuration, one) in enumerate(asked):
            session.aim(one.budget.budget())
            run = store.run(run_key(one, session, not_decisive=NOT_DECISIVE))
            session.ledger = run
            session.progress = Renamed(shown, str(number), configuration.name)
            with run:
                yield _placed(session, run, one, configuration)
        session.work.remove()


def _at(recipe: PruneRecipe, ratio: float) -> PruneRecipe:
    """The recipe of random search at this cost; all of its candidates see all images."""
    budget = recipe.budget.model_copy(update={"ratio": ratio})
    search = recipe.search.model_copy(update={"strategy": "random", "race": False})
    return recipe.model_copy(update={"budget": budget, "search": search})


def _placed(
    session: Session, run: Run, recipe: PruneRecipe, configuration: Configuration
) -> Placed:
    scores = prepared_scores(session, recipe)
    makers = repairing(session, scores, quick_form(recipe.recovery))
    judge, rank_by = session.quick_judge, session.rules.rank_by
    widths = configuration.widths(session.space)
    own = Evaluations(
        session, makers[SEARCHED], judge, Candidate(0, (), configuration.name), "search"
    )
    count = recipe.search.candidates
    beside = Evaluations(
        session, makers[RANDOM_SEARCH], judge, Candidate(0, (), RANDOM_SEARCH), "search"
    )
    done = len(own.known) + len(beside.known)
    text = f"{configuration.name} and {count} random configurations"
    with session.phase("search", text, total=count + 1, done=done) as running:
        it = own.next(widths)
        if it.status != "ok":
            raise DataError(f"{configuration.name!r} could not be evaluated: {it.error}")
        running.at(max(running.done, 1))
        beside.running = running
        rng = session.seeds.rng("search")
        drawn = RandomSearch(*session.limits).ask(session.space, session.budget, count, rng)
        beside.values(drawn)
    sound = [c for c in beside.found if c.status == "ok"]
    if not sound:
        raise DataError(
            f"All random configurations failed, the first with: {beside.found[0].error}"
        )
    uniform = uniform_controls(session, run, makers)[UNIFORM]
    return Placed(
        configuration,
        session.ratio(widths),
        value_of(it, rank_by),
        it.scores[SEARCH_TOP1],
        np.array([value_of(c, rank_by) for c in sound]),
        np.array([c.scores[SEARCH_TOP1] for c in sound]),
        value_of(uniform, rank_by) if uniform.status == "ok" else None,
    )
