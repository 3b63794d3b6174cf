"""The main job for several budgets: what is known of the network is made once, for all of them.

Each budget has records of its own, which are those of a job with that budget alone: the same
candidates, the same network. Tracing, statistics, scores, tables and the dense network's outputs
are shared; what they cost is in the ledger of the first budget that needs them. The test set is
opened when every budget has its network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from torch import nn

from randprune.criteria import Criterion
from randprune.jobs.curve import PruneCurve
from randprune.jobs.identity import numbered, run_key
from randprune.jobs.job import NOT_DECISIVE, Given, as_decided, at_work, finished_network, result_of
from randprune.jobs.progress import Renamed, phase
from randprune.jobs.pruning import Found, finish, found_network
from randprune.jobs.result import PruneResult
from randprune.jobs.session import Session
from randprune.jobs.traced import traced_session
from randprune.jobs.work_folder import WorkFolder
from randprune.recipe import PruneRecipe
from randprune.store import BudgetSeries, Run, Store
from randprune.strategies import Strategy


@dataclass(slots=True, eq=False)
class _Part:
    """One of the budgets: its recipe, its records, and the network that an earlier process found.

    `found`: what this process found, before the test set is opened.
    """

    recipe: PruneRecipe
    run: Run
    known: nn.Module | None
    found: Found | None = None


def prune_to_budgets(
    recipe: PruneRecipe,
    given: Given,
    *,
    criterion: Criterion | None = None,
    strategy: Strategy | None = None,
) -> PruneCurve:
    """Do the whole job for every budget of a recipe, or what is left of it.

    Args:
        recipe: what to do; with `budget.ratios`.
        given: the trained network, the images, and where results go.
        criterion, strategy: objects, instead of those that the recipe names.

    Raises:
        InfeasibleBudgetError: one of the budgets is out of reach; nothing is begun.
    """
    asked = recipe.for_each_budget()
    with Store.open(given.folder) as store:
        with phase(given.progress, "trace", "Tracing the network"):
            session = traced_session(asked[0], given)
        recipe = as_decided(recipe, session)
        asked = recipe.for_each_budget()
        for one in asked:
            session.aim(one.budget.budget())
            session.check_reachable()
        session.device = given.device
        job = run_key(recipe, session, not_decisive=NOT_DECISIVE).digest
        session.work = WorkFolder(given.folder / "work" / f"budgets-{job}")
        series = BudgetSeries(job, tuple(one.budget.ratio for one in asked))
        parts: list[_Part] = []
        with ExitStack() as at_once:
            for one in asked:
                session.aim(one.budget.budget())
                run = store.run(run_key(one, session, not_decisive=NOT_DECISIVE))
                part = _Part(one, run, finished_network(run, session.network))
                parts.append(part)
                run.write(series)
                if part.known is None:
                    _turn_to(part, session, given)
                    file = numbered(parts[0].run, "recipe.toml")
                    at_once.enter_context(at_work(recipe, session, run, file))
                    part.found = found_network(
                        session, run, one, criterion, strategy, given.trainer
                    )
            for part in parts:
                if part.found is not None:
                    _turn_to(part, session, given)
                    finish(session, part.run, part.recipe, part.found)
        session.work.remove()
        return PruneCurve(tuple(_results(parts, session, given)))


def _results(parts: Iterable[_Part], session: Session, given: Given) -> Iterator[PruneResult]:
    for part in parts:
        session.aim(part.recipe.budget.budget())
        network = part.known if part.found is None else part.found.network
        if network is not None:
            yield result_of(part.recipe, session, part.run, network, given)


def _turn_to(part: _Part, session: Session, given: Given) -> None:
    """Work from now on for this budget."""
    ratio = part.recipe.budget.ratio
    session.aim(part.recipe.budget.budget())
    session.part = f"run-{part.run.id}"
    session.ledger = part.run
    session.progress = Renamed(given.progress, f"{ratio:g}", f"{100 * ratio:g} %")
