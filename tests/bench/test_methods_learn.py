"""Methods that learn end better than they begin, on a made-up quality of configurations."""

from __future__ import annotations

import numpy as np
import pytest

from randprune.bench.methods import AMC, Greedy, LeGR, Sensitivity, StrategySearch
from randprune.testing.methods import TaskWatch


def worth(watch: TaskWatch) -> np.ndarray:
    """The made-up quality of every configuration that was evaluated, in order."""
    return np.array([float(np.log(widths).sum()) for widths in watch.evaluated])


def test_the_agent_of_amc_learns() -> None:
    watch = TaskWatch()
    AMC(episodes=120, warmup=40).propose(watch.task())
    found = worth(watch)
    assert len(found) == 120
    assert found[-30:].mean() > found[:40].mean() + 0.03


@pytest.mark.parametrize("method", [LeGR(60, 12, 4), StrategySearch("evolution", 60)])
def test_evolutions_keep_the_best(method: LeGR | StrategySearch) -> None:
    watch = TaskWatch()
    selection = method.propose(watch.task())
    found = worth(watch)
    assert float(np.log(selection.widths).sum()) == pytest.approx(found.max())
    assert found[-15:].mean() > found[:12].mean()


def test_one_threshold_and_greedy_steps_look_at_single_groups() -> None:
    watch = TaskWatch()
    task = watch.task()
    Sensitivity(levels=3).propose(task)
    full = task.space.widths
    changed = [int((widths != full).sum()) for widths in watch.evaluated]
    assert changed[0] == 0
    assert set(changed[1:]) == {1}
    watch = TaskWatch()
    Greedy(step=0.2).propose(watch.task())
    # Every round tries each group that can lose a step, from the best of the round before.
    totals = [int(widths.sum()) for widths in watch.evaluated]
    assert totals == sorted(totals, reverse=True)
