"""The conformance suite of strategies: those of the package pass, broken ones are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from randprune.cost import Budget
from randprune.space import IntArray, Space
from randprune.strategies import (
    EvolutionSearch,
    LagrangianSearch,
    OptunaSearch,
    ProxySearch,
    RandomSearch,
    SpdySearch,
    Strategy,
    UniformSearch,
)
from randprune.strategies.base import check_request
from randprune.testing import check_strategy


def tables(space: Space) -> list[np.ndarray]:
    return [1.0 / np.maximum(1.0, np.arange(width + 1.0)) for width in space.widths]


MAKERS: dict[str, Callable[[Space], Strategy]] = {
    "random": lambda space: RandomSearch(),
    "shifted": lambda space: RandomSearch(law="shifted"),
    "uniform": lambda space: UniformSearch(),
    "evolution": lambda space: EvolutionSearch(),
    "lagrangian": lambda space: LagrangianSearch(tables(space)),
    "spdy": lambda space: SpdySearch(tables(space)),
    "optuna-tpe": lambda space: OptunaSearch("tpe"),
    "optuna-cmaes": lambda space: OptunaSearch("cmaes"),
    "optuna-nsga2": lambda space: OptunaSearch("nsga2"),
    "proxy": lambda space: ProxySearch(tables(space), draws=200),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_packages_strategies(name: str) -> None:
    check_strategy(MAKERS[name])


@dataclass(frozen=True)
class Broken:
    """Random search that does one thing wrong."""

    fault: str

    def ask(self, space: Space, budget: Budget, n: int, rng: np.random.Generator) -> IntArray:
        if self.fault != "unchecked":
            n = check_request(n, rng)
        if self.fault == "global":
            np.random.random()  # noqa: NPY002
        if self.fault == "restless":
            rng = np.random.default_rng()
        if self.fault == "reckless" and budget.ratio < 1e-3:
            return np.ones((n, len(space)), dtype=np.int64)
        if self.fault == "dense":
            return np.repeat(space.widths[None], n, axis=0)
        found = RandomSearch().ask(space, budget, max(1, n), rng or np.random.default_rng(0))
        return found.astype(np.float64) if self.fault == "float" else found


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("dense", "gave ratios"),
        ("float", "not int64"),
        ("restless", "other rows for the same generator"),
        ("global", "numpy's global generator"),
        ("reckless", "did not raise InfeasibleBudgetError"),
        ("unchecked", "accepted n=0"),
    ],
)
def test_broken_ones_are_named(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_strategy(lambda space: Broken(fault))
