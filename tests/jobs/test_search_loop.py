"""The one loop of jobs and benchmarks: ask, evaluate, tell."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from randprune.bench.methods import RandomSearchMethod, base as methods_module
from randprune.cost import Budget
from randprune.errors import DataError
from randprune.jobs.search_loop import search
from randprune.space import IntArray, Space
from randprune.strategies import EvolutionSearch, RandomSearch
from randprune.testing.methods import TaskWatch

BUDGET = Budget("macs", 0.6, 0.1)


@dataclass
class Learner:
    """Random widths; notes what it is asked and told."""

    asked: list[int] = field(default_factory=list)
    told: list[tuple[int, list[float]]] = field(default_factory=list)

    def ask(self, space: Space, budget: Budget, n: int, rng: np.random.Generator) -> IntArray:
        self.asked.append(n)
        return RandomSearch().ask(space, budget, n, rng)

    def tell(self, widths: IntArray, values: list[float]) -> None:
        self.told.append((len(widths), list(values)))


def widest(rows: IntArray) -> list[float]:
    return [float(row.sum()) for row in rows]


def test_a_strategy_that_learns_is_told_of_each_generation_but_not_of_failures() -> None:
    space = TaskWatch().task().space
    seen: list[Learner] = []

    @dataclass
    class Watched(Learner):
        def __deepcopy__(self, memo: object) -> Watched:
            seen.append(Watched())
            return seen[-1]

    values = iter([1.0, -np.inf, *map(float, range(3, 26))])
    strategy = Watched()
    rng = np.random.default_rng(0)
    found = search(strategy, space, BUDGET, 25, rng, lambda rows: [next(values) for _ in rows])
    assert strategy.asked == []
    (learnt,) = seen
    assert learnt.asked == [2] * 12 + [1]
    assert learnt.told[0] == (1, [1.0])
    assert [count for count, _ in learnt.told[1:]] == [2] * 11 + [1]
    assert found.widths.shape == (25, len(space))
    assert found.best == 24


def test_random_search_is_asked_at_once_and_its_draws_are_handed_on() -> None:
    space = TaskWatch().task().space
    found = search(RandomSearch(), space, BUDGET, 7, np.random.default_rng(3), widest)
    same = RandomSearch().sample(space, BUDGET, 7, np.random.default_rng(3))
    assert np.array_equal(found.widths, same.widths)
    assert found.draws is not None
    assert (found.draws.drawn, found.draws.law) == (same.drawn, same.law)
    assert found.best == int(np.argmax(same.widths.sum(axis=1)))


def test_methods_of_the_benchmark_search_by_the_same_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def watched(*arguments: object) -> object:
        calls.append(arguments[3])  # type: ignore[arg-type]
        return search(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(methods_module, "search", watched)
    watch = TaskWatch()
    selection = RandomSearchMethod(candidates=6).propose(watch.task())
    assert calls == [6]
    assert len(watch.evaluated) == 6
    assert np.array_equal(selection.widths, max(watch.evaluated, key=lambda row: np.log(row).sum()))


def test_any_strategy_can_search_for_a_method() -> None:
    watch = TaskWatch()
    task = watch.task()
    widths = task.best_of(EvolutionSearch(population=4, tournament=2), 20)
    assert len(watch.evaluated) == 20
    assert any(np.array_equal(widths, row) for row in watch.evaluated)


def test_a_search_without_a_sound_candidate_says_so() -> None:
    task = TaskWatch().task()
    object.__setattr__(task, "evaluate", lambda widths: -np.inf)
    with pytest.raises(DataError, match=r"All 3 candidates of RandomSearch\(.*\) failed"):
        task.best_of(RandomSearch(), 3)
