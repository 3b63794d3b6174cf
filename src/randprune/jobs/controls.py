"""What the searched network is set beside: uniform widths, random channels, random configurations.

Where uniform widths cannot meet the budget, nothing is raised: people are told why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from randprune.errors import InfeasibleBudgetError
from randprune.jobs.candidates import Evaluations, Maker, Others, Slices
from randprune.jobs.race import Race
from randprune.jobs.ranking import best_first
from randprune.jobs.session import Session
from randprune.recipe import ScratchRecipe
from randprune.space import IntArray
from randprune.store import (
    RANDOM_CHANNELS,
    RANDOM_CONFIGURATION,
    RANDOM_SEARCH,
    SEARCHED,
    UNIFORM,
    Candidate,
    Run,
)
from randprune.strategies import RandomSearch, UniformSearch


def uniform_controls(
    session: Session, run: Run, makers: Mapping[str, Maker]
) -> dict[str, Candidate]:
    """Uniform widths, and random channels at those widths: candidates by method, recorded.

    Args:
        session: of the job.
        run: its records.
        makers: by method.
    """
    methods = (UNIFORM, RANDOM_CHANNELS)
    found = {m: c for m in methods if (c := run.candidate(0, m)) is not None}
    with session.phase("controls", "Controls", total=len(methods), done=len(found)) as running:
        for method in methods:
            if method in found:
                continue
            try:
                widths = uniform_widths(session)
            except InfeasibleBudgetError as error:
                dense = tuple(session.space.widths.tolist())
                found[method] = Candidate(0, dense, method, status="failed", error=str(error))
                run.record_candidate(found[method])
            else:
                same = None if method == RANDOM_CHANNELS else _searched(run, widths)
                if same is not None:  # evaluated already: the same channels, the same repair
                    found[method] = replace(same, index=0, method=method, seconds={})
                    run.record_candidate(found[method])
                    running.step()
                    continue
                judge = session.quick_judge
                made = Evaluations(
                    session, makers[method], judge, Candidate(0, (), method), "controls"
                )
                found[method] = made.next(widths)
            running.step()
    return found


def random_control(
    session: Session,
    count: int,
    maker: Maker,
    race: Race | None = None,
    others: Others | None = None,
) -> Candidate:
    """The best of `count` random configurations, made and judged as those of the search.

    They are the ones that a job with the random strategy searches, for the same seed.

    Raises:
        DataError: all of them failed.
    """
    made = Evaluations(
        session,
        maker,
        session.quick_judge,
        Candidate(0, (), RANDOM_SEARCH),
        "controls",
        race=race,
        others=others,
    )
    text, done = f"Searching {count} random configurations, as a control", len(made.known)
    with session.phase(RANDOM_SEARCH, text, total=count, done=done) as made.running:
        rng, strategy = session.seeds.rng("search"), RandomSearch(*session.limits)
        made.values(strategy.ask(session.space, session.budget, count, rng))
    return best_first(made.found, session.rules.rank_by)[0]


def _searched(run: Run, widths: IntArray) -> Candidate | None:
    """The candidate of the search that has these widths."""
    row = tuple(widths.tolist())
    return next((c for c in run.candidates(SEARCHED) if c.widths == row), None)


def uniform_widths(session: Session) -> IntArray:
    """The same share of every layer's channels of the original network, int64 (G,).

    Raises:
        InfeasibleBudgetError: no uniform configuration meets the budget.
    """
    original, rng = session.original, session.seeds.rng(UNIFORM)
    # Uniform widths have no lower bound: the budget gives the one ratio that they can have.
    strategy = UniformSearch(round_to=session.step)
    widths: IntArray = strategy.ask(original.space, original.budget, 1, rng)[0]
    return widths


@dataclass(frozen=True, slots=True)
class ScratchControls:
    """The controls of a job from scratch that have widths of their own.

    Attributes:
        candidates: evaluated with shared weights; those that could not be are left out.
        notes: what a reader must know.
    """

    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]


def scratch_controls(
    recipe: ScratchRecipe, session: Session, run: Run, slices: Slices
) -> ScratchControls:
    """The controls that the recipe asks for: uniform widths, and random ones, one a seed."""
    rows: list[tuple[str, list[IntArray]]] = []
    notes: list[str] = []
    if recipe.controls.uniform:
        try:
            rows.append((UNIFORM, [uniform_widths(session)]))
        except InfeasibleBudgetError as error:
            notes.append(f"No uniform widths: {error}")
    if recipe.controls.random:
        rng, strategy = session.seeds.rng(RANDOM_CONFIGURATION), RandomSearch(*session.limits)
        drawn = strategy.ask(session.space, session.budget, recipe.training.seeds, rng)
        rows.append((RANDOM_CONFIGURATION, list(drawn)))
    found: list[Candidate] = []
    total = sum(len(configurations) for _, configurations in rows)
    done = sum(len(run.candidates(method)) for method, _ in rows)
    with session.phase("controls", "Controls", total=total, done=done) as running:
        for method, configurations in rows:
            made = Evaluations(
                session, slices, session.quick_judge, Candidate(0, (), method), "controls"
            )
            for widths in configurations:
                made.next(widths)
                if len(made.found) > len(made.known):
                    running.step()
            found += made.found
    return ScratchControls(tuple(c for c in found if c.status == "ok"), tuple(notes))
