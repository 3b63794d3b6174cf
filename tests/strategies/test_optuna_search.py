"""Samplers of Optuna as strategies: they learn, and what they cannot do is said."""

from __future__ import annotations

import numpy as np
import pytest
from quadratic_spaces import chain

from randprune.cost import Budget
from randprune.errors import InvalidInputError
from randprune.strategies import OptunaSearch, RandomSearch, optuna_search
from randprune.strategies.optuna_search import SAMPLERS

BUDGET = Budget("macs", 0.5, 0.01)


def worth(space, rows: np.ndarray) -> np.ndarray:
    """Better with wide first groups and narrow last ones."""
    share = rows / space.widths
    wanted = np.linspace(1.0, 0.4, len(space))
    return -((share - wanted) ** 2).sum(axis=1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_later_proposals_are_better(sampler: str) -> None:
    space = chain(*[64] * 6)
    strategy, rng = OptunaSearch(sampler), np.random.default_rng(0)
    values = []
    for _ in range(25):
        rows = strategy.ask(space, BUDGET, 8, rng)
        found = worth(space, rows)
        strategy.tell(rows, found)
        values.append(found.mean())
    random = worth(space, RandomSearch().ask(space, BUDGET, 400, rng))
    late = np.mean(values[-5:])
    assert late > random.mean() + 0.5 * random.std(), sampler


def test_configurations_of_others_teach_tpe() -> None:
    space, rng = chain(*[64] * 6), np.random.default_rng(0)
    strategy = OptunaSearch("tpe")
    strategy.ask(space, BUDGET, 1, rng)
    others = RandomSearch().ask(space, BUDGET, 200, rng)
    strategy.tell(others, worth(space, others))
    rows = strategy.ask(space, BUDGET, 50, rng)
    values = worth(space, others)
    assert worth(space, rows).mean() > values.mean() + 0.5 * values.std()
    told = {row.tobytes() for row in others}
    assert not any(row.tobytes() in told for row in rows), "what is known is not asked for again"


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="must be one of tpe, cmaes, nsga2"):
        OptunaSearch("gp")
    strategy, rng = OptunaSearch(), np.random.default_rng(0)
    strategy.ask(chain(*[64] * 4), BUDGET, 1, rng)
    with pytest.raises(InvalidInputError, match="has learned on a space of 4 groups"):
        strategy.ask(chain(*[64] * 5), BUDGET, 1, rng)
    monkeypatch.setattr(optuna_search, "find_spec", lambda name: None)
    named = r"needs optuna and cmaes: pip install 'randprune\[optuna\]'"
    with pytest.raises(InvalidInputError, match=named):
        OptunaSearch()
