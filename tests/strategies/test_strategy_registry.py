from __future__ import annotations

import ast
from pathlib import Path

import pytest

from randprune.errors import InvalidInputError
from randprune.strategies import (
    EvolutionSearch,
    LagrangianSearch,
    RandomSearch,
    base as strategy_base,
    strategies,
)


def test_names_and_options():
    assert {"evolution", "lagrangian", "proxy", "random", "spdy", "uniform"} <= set(
        strategies.names()
    )
    assert strategies.create("random", min_keep=0.3) == RandomSearch(min_keep=0.3)
    assert isinstance(strategies.create("evolution"), EvolutionSearch)
    assert isinstance(strategies.create("lagrangian", tables=[]), LagrangianSearch)


def test_unknown_names_and_duplicates():
    with pytest.raises(InvalidInputError, match=r"'randm'.* Did you mean .*'random'"):
        strategies.create("randm")
    with pytest.raises(ValueError, match="'random' is registered already"):
        strategies.register("random")(RandomSearch)


def test_search_never_imports_torch():
    for path in Path(strategy_base.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "torch" for name in names), path.name
