"""The one loop of every search: ask a strategy, have its proposals evaluated, tell it the values.

A resumed job asks the strategy the same questions again, which costs next to nothing, and whoever
evaluates looks into the records first.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from randprune.cost import Budget, FloatArray
from randprune.errors import InfeasibleBudgetError
from randprune.jobs.candidates import Evaluations, Maker, Others
from randprune.jobs.controls import uniform_widths
from randprune.jobs.race import Race
from randprune.jobs.session import Session
from randprune.recipe import SearchSection
from randprune.space import IntArray, Space
from randprune.store import SEARCHED, Candidate, Run, SearchInfo
from randprune.strategies import AdaptiveStrategy, RandomSearch, Strategy, strategies
from randprune.strategies.feasible import WidthGrid, check_grid
from randprune.strategies.proxy import check_tables, predicted
from randprune.strategies.random import Draws

# An adaptive strategy learns this often in the course of a search.
_GENERATIONS = 20

Evaluate = Callable[[IntArray], Sequence[float]]
"""Configurations (N, G) -> their values (N,), higher = better; -inf for one that failed."""


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """What a search went through.

    Attributes:
        widths: the configurations in the order of proposal, int64 (N, G).
        values: what they are worth, (N,), higher = better; -inf for one that failed.
        draws: how random draws went; None for other strategies.
    """

    widths: IntArray
    values: FloatArray
    draws: Draws | None = None

    @property
    def best(self) -> int:
        """The index of the best value; of equal ones the first."""
        return int(np.argmax(self.values))


def search(
    strategy: Strategy,
    space: Space,
    budget: Budget,
    count: int,
    rng: np.random.Generator,
    evaluate: Evaluate,
    first: IntArray | None = None,
) -> Searched:
    """All proposals of a strategy, evaluated.

    One that learns is asked in twenty generations and told of each; what failed it does not hear
    of. At least one configuration is its own.

    Args:
        strategy: proposes; not modified.
        space, budget: what it proposes for.
        count: how many configurations.
        rng: the source of all randomness.
        evaluate: what they are worth, a whole generation at a time.
        first: configurations (K, G) that come before the strategy's, whatever it is.
    """
    strategy = copy.deepcopy(strategy)
    learns = isinstance(strategy, AdaptiveStrategy)
    generation = -(-count // _GENERATIONS) if learns else count
    rows: list[IntArray] = []
    values: list[float] = []
    draws: Draws | None = None
    given = np.empty((0, len(space)), dtype=np.int64) if first is None else first[: count - 1]
    while len(values) < count:
        size = min(count - len(values), generation)
        if len(given):
            proposed, given = given, given[:0]
        elif isinstance(strategy, RandomSearch):
            draws = strategy.sample(space, budget, size, rng)
            proposed = draws.widths
        else:
            proposed = strategy.ask(space, budget, size, rng)
        rows.append(proposed)
        found = np.asarray(evaluate(proposed), dtype=np.float64)
        values.extend(found.tolist())
        sound = np.isfinite(found)
        if isinstance(strategy, AdaptiveStrategy) and sound.any():
            strategy.tell(proposed[sound], found[sound].tolist())
    return Searched(np.concatenate(rows), np.array(values), draws)


def search_candidates(
    session: Session,
    run: Run,
    info: SearchInfo,
    strategy: Strategy,
    maker: Maker,
    race: Race | None = None,
    others: Others | None = None,
) -> tuple[Candidate, ...]:
    """All candidates of a job's search, recorded, in the order in which they were proposed.

    Of two or more the first one has uniform widths, where these meet the budget and the limits: no
    search ends below its control on the images that rank. The others are the strategy's.

    Args:
        session: of the job.
        run: its records.
        info: what the records say of the search, and how many candidates it has.
        strategy: proposes them.
        maker: makes them.
        race: stops those that are clearly behind; None: all see all images that rank.
        others: make and judge them in place of this process; None: nobody.
    """
    space, budget, total = session.space, session.budget, info.planned
    shown = strategy.resolve(space, budget) if isinstance(strategy, RandomSearch) else strategy
    info = replace(info, strategy=repr(shown), images=len(session.ranking_images))
    run.write(info)
    tables = getattr(strategy, "tables", None)
    evaluations = Evaluations(
        session,
        maker,
        session.quick_judge,
        Candidate(0, (), SEARCHED),
        "search",
        race=race,
        others=others,
    )
    if tables is not None:
        evaluations.predict = partial(predicted, check_tables(space, tables))
    done = len(evaluations.known)
    text = f"Searching {total} configurations"
    with session.phase("search", text, total=total, done=done) as evaluations.running:
        rng = session.seeds.rng("search")
        first = uniform_row(session)
        found = search(strategy, space, budget, total, rng, evaluations.values, first)
    if found.draws is not None:
        run.write(replace(info, draws=found.draws.drawn, acceptance=found.draws.acceptance))
    return tuple(evaluations.found)


def uniform_row(session: Session) -> IntArray | None:
    """Uniform widths as one row (1, G); None where they miss the budget or the limits on widths."""
    try:
        widths = uniform_widths(session)[None]
    except InfeasibleBudgetError:
        return None
    low = WidthGrid.of(session.space, *session.limits).low
    return widths if bool((widths >= low).all()) else None


def create_strategy(section: SearchSection, tables: Callable[[], Any]) -> Strategy:
    """The strategy that a recipe names, with its limits on widths; `options` win over them.

    A strategy whose constructor takes `tables` (the error of each group over its width) gets those
    that `tables()` makes; one that takes a `base` improves on random search.
    """
    min_keep, round_to = section.min_keep, section.round_to
    assert isinstance(round_to, int)  # decided when the session was opened
    check_grid("the [search] section", min_keep, round_to)
    takes = inspect.signature(strategies.constructor(section.strategy)).parameters
    given: dict[str, Any] = {"round_to": round_to}
    # Uniform widths have no lower bound: the budget gives the one ratio that they can have.
    if section.strategy != "uniform":
        given["min_keep"] = min_keep
    if "base" in takes:
        given["base"] = RandomSearch(min_keep=min_keep, round_to=round_to, law="shifted")
    if "tables" in takes:
        given["tables"] = tables()
    known = {name: value for name, value in given.items() if name in takes}
    return strategies.create(section.strategy, **{**known, **section.options})
