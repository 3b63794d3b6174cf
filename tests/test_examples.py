"""The examples in the docstrings of the public functions and classes, run as they stand."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = (
    "randprune.cost",
    "randprune.criteria.scoring",
    "randprune.graph.trace",
    "randprune.strategies.random",
    "randprune.space",
    "randprune.surgery",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name: str) -> None:
    failed, tried = doctest.testmod(import_module(name))
    assert tried > 0
    assert failed == 0
