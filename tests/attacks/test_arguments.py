"""Arguments of another type, NUL characters in names: one sentence, never a raw exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attacked import EXAMPLE, images, network
from torch import nn

import randprune as rp
from randprune.errors import InvalidInputError, RandpruneError

ANY: Any = None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rp.Budget("macs", "half"), "'ratio' parameter of Budget must be a number"),  # type: ignore[arg-type]
        (lambda: rp.Budget("macs", ANY), "'ratio' parameter of Budget must be a number. Got None"),
        (lambda: rp.Budget("macs", True), "'ratio' parameter of Budget must be a number. Got True"),
        (lambda: rp.Budget("macs", np.array([0.5, 0.5])), "Budget must be a number"),  # type: ignore[arg-type]
        (lambda: rp.Budget("macs", 0.5, "x"), "'tolerance' parameter of Budget must be a number"),  # type: ignore[arg-type]
        (lambda: rp.Budget(3, 0.5), "'metric' parameter of Budget must be the name of a cost"),  # type: ignore[arg-type]
        (lambda: rp.trace(network(), EXAMPLE, freeze=3), "'freeze' parameter of trace must be"),  # type: ignore[arg-type]
        (lambda: rp.trace(network(), EXAMPLE, freeze=[3]), "'freeze' parameter of trace must be"),  # type: ignore[list-item]
        (lambda: rp.trace(network(), EXAMPLE, allow=3), "'allow' parameter of trace must be names"),  # type: ignore[arg-type]
        (lambda: rp.PruneRecipe.load("a\0b"), "holds a NUL character"),
        (lambda: rp.PruneRecipe().save("a\0b"), "holds a NUL character"),
        (lambda: rp.PruneRecipe.load(3), "must be a file name: a text or a pathlib.Path. Got 3"),  # type: ignore[arg-type]
        (lambda: rp.PruneRecipe.load(b"a"), "must be a file name"),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_another_type_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_one_name_may_be_given_without_a_list() -> None:
    space = rp.trace(network(), EXAMPLE, freeze="0", allow="mean")
    listed = rp.trace(network(), EXAMPLE, freeze=["0"], allow=["mean"])
    assert space.to_json() == listed.to_json()


@pytest.mark.parametrize("criterion", [3, ANY, int, np.float64])
def test_a_criterion_is_a_name_or_an_object(criterion: Any) -> None:
    space = rp.trace(network(), EXAMPLE)
    with pytest.raises(InvalidInputError, match="'criterion' parameter must be"):
        rp.score(network(), space, criterion)


@pytest.mark.parametrize("selection", [ANY, [[0]], 3])
def test_a_selection_is_a_selection(selection: Any) -> None:
    space = rp.trace(network(), EXAMPLE)
    with pytest.raises(RandpruneError, match="'selection' parameter must be a Selection"):
        rp.cut(network(), space, selection)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": "half"}, "'budget' parameter must be the share of the MACs"),
        ({"budget": None}, "'budget' parameter must be the share of the MACs"),
        ({"budget": ["half"]}, "'budget' parameter must be the share of the MACs"),
        ({"budget": True}, "'budget' parameter must be the share of the MACs"),
        ({"budget": np.array([0.5, 0.5])}, "ratios must be given once each"),
        ({"budget": []}, "'budget' parameter must be one budget or several"),
        ({"budget": [[0.5]]}, "'budget' parameter must be the share of the MACs"),
        ({"criterion": 3}, "'criterion' parameter must be the name of a criterion"),
        ({"criterion": []}, "'criterion' parameter must be the name of a criterion"),
        ({"criterion": int}, "'criterion' parameter must be a criterion, not its class"),
        ({"strategy": 3}, "'strategy' parameter must be the name of a search strategy"),
        ({"strategy": rp.RandomSearch}, "make one first: RandomSearch"),
        ({"finetune": "3"}, "'finetune' parameter of prune must be a number of epochs"),
        ({"finetune": 1.5}, "'finetune' parameter of prune must be a number of epochs"),
        ({"finetune": [1]}, "'finetune' parameter of prune must be a number of epochs"),
        ({"finetune": {1: 2}}, "'finetune' parameter of prune must be a number of epochs"),
        ({"finetune": True}, "'finetune' parameter of prune must be a number of epochs"),
        ({"settings": "x"}, "'settings' parameter must be a mapping"),
        ({"settings": ["x"]}, "'settings' parameter must be a mapping"),
        ({"example_inputs": "x"}, "'example_inputs' parameter must be a tensor"),
        ({"out": "a\0b"}, "'out' parameter holds a NUL character"),
        ({"out": 3}, "'out' parameter must be a file name"),
        ({"out": b"x"}, "'out' parameter must be a file name"),
    ],
)
def test_parameters_of_a_job_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        rp.prune(network(), images(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": nn.Conv2d}, "Got the class Conv2d; make one first"),
        ({"budget": "half"}, "'budget' parameter must be the share of the MACs"),
        ({"budget": None}, "'budget' parameter must be the share of the MACs"),
        ({"factor": "wide"}, "'factor' parameter of prune_from_scratch must be how much wider"),
        ({"factor": None}, "'factor' parameter of prune_from_scratch must be how much wider"),
        ({"factor": {"0": "x"}}, "'factor' parameter of prune_from_scratch must be how much wider"),
        ({"factor": {0: 2.0}}, "'factor' parameter of prune_from_scratch must be how much wider"),
        ({"factor": float("nan")}, "widen.factor"),
        (
            {"supernet": "3"},
            "'supernet' parameter of prune_from_scratch must be a number",
        ),
        ({"supernet": None}, "'supernet' parameter of prune_from_scratch must be at least one"),
        (
            {"training": 1.5},
            "'training' parameter of prune_from_scratch must be a number",
        ),
        ({"training": 0}, "'training' parameter of prune_from_scratch must be at least one epoch"),
        ({"training": {1: 2}}, "'training' parameter of prune_from_scratch must be a number"),
        ({"strategy": 3}, "'strategy' parameter must be the name of a search strategy"),
        ({"strategy": rp.RandomSearch}, "make one first: RandomSearch"),
        ({"settings": "x"}, "'settings' parameter must be a mapping"),
        ({"example_inputs": "x"}, "'example_inputs' parameter must be a tensor"),
        ({"seeds": "x"}, "training.seeds"),
        ({"out": "a\0b"}, "'out' parameter holds a NUL character"),
    ],
)
def test_parameters_of_a_job_from_scratch_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        rp.prune_from_scratch(**{"model": network(), "data": images(), **change})
