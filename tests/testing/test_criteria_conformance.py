"""The conformance suite: all built-in criteria pass it, and broken ones are caught, each rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from randprune.criteria.base import criteria
from randprune.graph.observers import Observer
from randprune.testing import check_criterion

# name -> what is promised beyond the contract
PROMISES = {
    "bn_scale": {"scale_power": 1},
    "chip": {"scale_power": 1},
    "empirical_sensitivity": {"scale_power": 0},
    "gates": {},
    "geometric_median": {"scale_power": 1},
    "kl": {},
    "l1": {"scale_power": 1},
    "l2": {"scale_power": 1},
    "lamp": {"scale_power": 0},
    "random": {"informed": False},
    "reconstruction": {},
    "taylor": {},
}


def built_in(name: str) -> bool:
    """Whether the package brings it: other tests register criteria of their own."""
    return criteria.constructor(name).__module__.startswith("randprune.")


@pytest.mark.parametrize("name", [name for name in criteria.names() if built_in(name)])
def test_built_in_criteria_conform(name):
    check_criterion(criteria.create(name), **PROMISES[name])


@dataclass(frozen=True)
class _Filters:
    """A sound criterion to break: L1 norms of all filters that read or produce."""

    name: ClassVar[str] = "filters"
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    def scores(self, context):
        return [
            sum(context.filters(slot).abs().sum(dim=(1, 2)) for slot in group.with_role("out"))
            for group in context.space.groups
        ]


def test_a_sound_plug_in_passes():
    check_criterion(_Filters(), scale_power=1)


class _Lower(_Filters):
    def scores(self, context):
        return [-values for values in super().scores(context)]


class _Position(_Filters):
    def scores(self, context):
        return [v * torch.arange(1, len(v) + 1) for v in super().scores(context)]


class _Editing(_Filters):
    def scores(self, context):
        torch.rand(1)
        return super().scores(context)


class _Moody(_Filters):
    calls: ClassVar[list[int]] = []

    def scores(self, context):
        self.calls.append(1)
        return [values + len(self.calls) for values in super().scores(context)]


class _Integers(_Filters):
    def scores(self, context):
        return [values.long() for values in super().scores(context)]


class _Blind(_Filters):
    needs: ClassVar[frozenset[str]] = frozenset({"activations"})


class _Greedy(_Filters):
    needs: ClassVar[frozenset[str]] = frozenset({"everything"})


class _Graph(_Filters):
    def scores(self, context):
        return [values.clone().requires_grad_() for values in super().scores(context)]


class _Leaky(_Filters):
    """Leaves something in the shared statistics that changes what it says the next time."""

    def scores(self, context):
        done = context.shared.observers.done
        extra = int("leak" in done)
        done["leak"] = Observer()
        return [values + extra for values in super().scores(context)]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (_Lower, "Higher must mean keep"),
        (_Position, "after renumbering the channels"),
        (_Editing, "changed the caller's network"),
        (_Moody, "when it was asked again"),
        (_Integers, "not floating point"),
        (_Blind, "did not read them to the end"),
        (_Greedy, "needs \\['everything'\\]"),
        (_Graph, "carry gradients"),
        (_Leaky, "with passes that were shared before"),
    ],
)
def test_each_broken_rule_is_named(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_criterion(broken())


def test_a_wrong_promise_about_scale_is_noticed():
    with pytest.raises(AssertionError, match=r"with its filters doubled \(factor 4.0\)"):
        check_criterion(_Filters(), scale_power=2)


def test_a_class_with_options_must_say_them_in_its_repr():
    @dataclass(frozen=True, repr=False)
    class Hidden(_Filters):
        power: int = 1

        def __repr__(self):
            return "Hidden()" if self.power == 1 else "Hidden( )"

    with pytest.raises(AssertionError, match="does not rebuild"):
        check_criterion(Hidden(power=2))
    with pytest.raises(AssertionError, match="is no Criterion"):
        check_criterion(object())
