"""The search: configurations are proposed, made, repaired, evaluated and recorded one by one.

Every candidate is on the disk before the next one is begun, so that a killed job loses at most one.
A resumed job asks the strategy the same questions again, which costs next to nothing, tells it
what the records hold, and goes on with the first configuration that has no record.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from randprune.errors import InfeasibleBudgetError, StorageError
from randprune.jobs.candidates import Made, evaluate_candidate, value_of
from randprune.jobs.job import Job
from randprune.jobs.judge import Judge
from randprune.recipe import SearchSection
from randprune.search import AdaptiveStrategy, RandomSearch, Strategy, UniformSearch, strategies
from randprune.search.feasible import check_grid
from randprune.search.proxy import Tables, check_tables, proxy_errors
from randprune.space import IntArray
from randprune.store import PROXY, RANDOM_CHANNELS, SEARCHED, UNIFORM, Candidate, SearchInfo

# An adaptive strategy learns this often in the course of a search.
_GENERATIONS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Tools:
    """What turns a configuration into a candidate of one job.

    Attributes:
        make: widths and method -> the repaired network of a configuration.
        judge: measures the result.
        images_forward: images that one repair sends through the candidate.
        criterion, recovery: what chooses channels and what repairs, for the records.
    """

    make: Callable[[IntArray, str], Made]
    judge: Judge
    images_forward: int = 0
    criterion: str = ""
    recovery: str = ""


def create_strategy(section: SearchSection, tables: Callable[[], Any]) -> Strategy:
    """The strategy that a recipe names, with its limits on widths; `options` win over them.

    A strategy whose constructor takes `tables` (the error of each group over its width) gets those
    that `tables()` makes; one that takes a `base` improves on random search.
    """
    min_keep, round_to = section.min_keep, section.round_to
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


def search(job: Job[Any], strategy: Strategy, tools: Tools) -> tuple[Candidate, ...]:
    """All candidates of the search, recorded, in the order in which they were proposed."""
    total = job.recipe.search.candidates
    recorded = {c.index: c for c in job.run.candidates(SEARCHED)}
    found: list[Candidate] = []
    by_widths: dict[tuple[int, ...], Candidate] = {}
    best = -np.inf
    tables = getattr(strategy, "tables", None)
    with job.phase(
        "search", f"Searching {total} configurations", total=total, done=len(recorded)
    ) as running:
        for widths in _proposals(job, strategy, tools, found):
            index = len(found)
            candidate = recorded.get(index)
            if candidate is None:
                twin = by_widths.get(tuple(widths.tolist()))
                candidate = evaluate(job, tools, widths, index, SEARCHED, twin, tables)
            elif candidate.widths != tuple(widths.tolist()):
                raise StorageError(
                    f"Candidate {index} in the records of {job.run.store.folder} has other widths "
                    "than this version of randprune proposes. Use a new output folder."
                )
            found.append(candidate)
            by_widths.setdefault(candidate.widths, candidate)
            best = max(best, value_of(candidate, "accuracy"))
            if index not in recorded:
                running.at(max(running.done, index + 1), **({"best_top1": best} if found else {}))
    return tuple(found)


def _proposals(
    job: Job[Any], strategy: Strategy, tools: Tools, found: Sequence[Candidate]
) -> Iterator[IntArray]:
    """All configurations, one by one; an adaptive strategy is told of those in `found`."""
    total = job.recipe.search.candidates
    strategy = copy.deepcopy(strategy)  # an adaptive one learns: the caller's stays as it is
    rng = job.rng("search")
    if isinstance(strategy, RandomSearch):
        draws = strategy.sample(job.space, job.budget, total, rng)
        info = _info(job, tools, repr(replace(strategy, law=draws.law)))  # type: ignore[arg-type]
        job.run.write(replace(info, draws=draws.drawn, acceptance=draws.acceptance))
        yield from draws.widths
        return
    job.run.write(_info(job, tools, repr(strategy)))
    if not isinstance(strategy, AdaptiveStrategy):
        yield from strategy.ask(job.space, job.budget, total, rng)
        return
    asked = 0
    while asked < total:
        count = min(total - asked, -(-total // _GENERATIONS))
        yield from strategy.ask(job.space, job.budget, count, rng)
        told = [c for c in found[asked : asked + count] if c.status == "ok"]
        asked += count
        if told:
            values = [value_of(c, job.recipe.search.rank_by) for c in told]
            strategy.tell(np.array([c.widths for c in told], dtype=np.int64), values)


def _info(job: Job[Any], tools: Tools, strategy: str) -> SearchInfo:
    return SearchInfo(
        planned=job.recipe.search.candidates,
        strategy=strategy,
        criterion=tools.criterion,
        recovery=tools.recovery,
        images=len(job.data.search_indices),
    )


def controls(job: Job, tools: Tools) -> dict[str, Candidate]:
    """The two controls by method, recorded: uniform widths, and random channels at those widths.

    Raises nothing where uniform widths cannot meet the budget: the reason is recorded.
    """
    methods = (UNIFORM, RANDOM_CHANNELS)
    recorded = {m: c for m in methods if (c := job.run.candidate(0, m)) is not None}
    with job.phase("controls", "Controls", total=len(methods), done=len(recorded)) as running:
        for method in methods:
            if method in recorded:
                continue
            try:
                strategy = UniformSearch(round_to=job.recipe.search.round_to)
                widths = strategy.ask(job.space, job.budget, 1, job.rng("uniform"))[0]
            except InfeasibleBudgetError as error:
                dense = tuple(job.space.widths.tolist())
                recorded[method] = Candidate(0, dense, method, status="failed", error=str(error))
                job.run.record_candidate(recorded[method])
            else:
                recorded[method] = evaluate(job, tools, widths, 0, method)
            running.step()
    return recorded


def evaluate(
    job: Job[Any],
    tools: Tools,
    widths: IntArray,
    index: int,
    method: str,
    twin: Candidate | None = None,
    tables: Tables | None = None,
) -> Candidate:
    """Make, evaluate and record one candidate; `twin` has the same widths and is not made again.

    Where the strategy has `tables`, their prediction is recorded beside the evaluation.
    """
    if twin is not None:
        candidate = replace(twin, index=index, seconds={})
        job.run.record_candidate(candidate)
        return candidate
    candidate = evaluate_candidate(
        job.space,
        tools.judge,
        lambda: tools.make(widths, method),
        widths,
        index=index,
        method=method,
    )
    if tables is not None and candidate.status == "ok":
        proxy = -float(proxy_errors(check_tables(job.space, tables), widths[None])[0])
        candidate = replace(candidate, scores={**candidate.scores, PROXY: proxy})
    images = len(job.data.search_indices) + tools.images_forward
    entry = job.entry(
        "search" if method == SEARCHED else "controls",
        f"{method}/{index}",
        seconds=sum(candidate.seconds.values()),
        candidates=1,
        forward={candidate.costs["macs"]: images if candidate.status == "ok" else 0},
    )
    job.run.record_candidate(candidate, [entry])
    return candidate
