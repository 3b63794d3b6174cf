"""Iterative pruning goes step by step: what is scored in between lies between dense and budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import Tensor

from randprune.bench.methods.base import methods
from randprune.space import Selection
from randprune.testing.methods import TaskWatch


@pytest.mark.parametrize("widths", ["uniform", "global"])
def test_each_step_cuts_by_the_same_factor_and_scores_anew(widths: str) -> None:
    task = TaskWatch().task()
    cost = task.space.cost("macs")
    seen: list[Selection] = []

    def rescore(selection: Selection) -> list[Tensor]:
        seen.append(selection)
        return task.rescore(selection)

    found = methods.create("iterative", steps=3, widths=widths).propose(
        replace(task, rescore=rescore)
    )
    shares = [float(cost(s.widths)) / cost.dense for s in (*seen, found)]
    asked = [task.budget.ratio ** (step / 3) for step in (1, 2, 3)]
    assert shares == pytest.approx(asked, abs=task.budget.tolerance)
    # What is gone stays gone.
    for wider, narrower in zip(seen, [*seen[1:], found], strict=True):
        assert all(set(b) <= set(a) for a, b in zip(wider, narrower, strict=True))


def test_later_scores_decide_what_later_steps_cut() -> None:
    task = TaskWatch().task()

    def reversed_scores(selection: Selection) -> list[Tensor]:
        return [-values for values in task.rescore(selection)]

    method = methods.create("iterative", steps=2)
    plain, turned = method.propose(task), method.propose(replace(task, rescore=reversed_scores))
    assert plain.widths.tolist() == turned.widths.tolist()
    assert any(set(a) != set(b) for a, b in zip(plain, turned, strict=True))
