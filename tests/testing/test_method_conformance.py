"""The conformance suite of methods: every method of the package passes, broken ones are named."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from randprune.bench.methods.base import Method, Task, methods
from randprune.space import Selection
from randprune.testing import check_method

_CALLS = itertools.count()

METHODS = [
    *(methods.create(name) for name in ("random_search", "uniform", "random_channels")),
    methods.create("random_channels", widths="random"),
    *(methods.create("global_ranking", norm=norm) for norm in ("l2", "mean", "max", "none")),
    methods.create("iterative", steps=2),
    methods.create("iterative", steps=3, widths="global"),
    methods.create("best_by_proxy", draws=50),
    methods.create("amc", episodes=8, warmup=4),
    methods.create("eagleeye", candidates=3),
    *(methods.create("strategy_search", strategy=s, candidates=8) for s in ("evolution", "spdy")),
    methods.create("greedy", step=0.2),
    methods.create("sensitivity", levels=3),
    methods.create("legr", candidates=10, population=4, tournament=2),
    *(methods.create("knapsack", norm=norm) for norm in ("none", "mean")),
]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_packages_methods(method: Method) -> None:
    check_method(method)


@dataclass(frozen=True)
class Uniform:
    """A sound method, for the broken ones below to change."""

    uses_criterion: ClassVar[bool] = True
    words: ClassVar[str] = "Uniform widths."

    def propose(self, task: Task) -> Selection:
        return task.select(task.uniform_widths())


@dataclass(frozen=True)
class TooWide(Uniform):
    def propose(self, task: Task) -> Selection:
        return task.space.dense


@dataclass(frozen=True)
class OtherChance(Uniform):
    def propose(self, task: Task) -> Selection:
        return replace(task, rng=np.random.default_rng()).select(task.random_widths(1)[0])


@dataclass(frozen=True)
class FreshChance(Uniform):
    def propose(self, task: Task) -> Selection:
        other = replace(task, rng=np.random.default_rng(next(_CALLS)))
        return task.select(other.random_widths(1)[0])


@dataclass(frozen=True)
class SaysNoCriterion(Uniform):
    uses_criterion: ClassVar[bool] = False


@dataclass(frozen=True)
class IgnoresCriterion(Uniform):
    def propose(self, task: Task) -> Selection:
        return task.select(
            task.uniform_widths(), [torch.arange(g.width) for g in task.space.groups]
        )


@dataclass(frozen=True)
class Silent(Uniform):
    words: ClassVar[str] = ""


@dataclass(frozen=True)
class GlobalChance(Uniform):
    def propose(self, task: Task) -> Selection:
        torch.rand(1)
        return super().propose(task)


def test_a_sound_one_passes() -> None:
    check_method(Uniform())
    check_method(OtherChance())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (TooWide(), r"proposed 1.0000 of the macs"),
        (FreshChance(), "other channels for the same task"),
        (SaysNoCriterion(), "does not use the criterion, but its proposal changes"),
        (IgnoresCriterion(), "proposes the same channels when all"),
        (Silent(), "words must be a sentence"),
        (GlobalChance(), "or torch's generator"),
        (object(), "it is no Method"),
    ],
)
def test_broken_ones_are_named(method: Method, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_method(method)
