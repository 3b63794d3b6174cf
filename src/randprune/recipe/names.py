"""Names of registered things as types of recipe keys: what is not registered is refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from randprune.criteria import criteria
from randprune.recovery import parse
from randprune.search import strategies

# Stands before the repr of a criterion or strategy that was given as an object.
CUSTOM = "custom:"


def _criterion(name: str) -> str:
    criteria.constructor(name)
    return name


def _criterion_or_object(name: str) -> str:
    return name if name.startswith(CUSTOM) else _criterion(name)


def _strategy_or_object(name: str) -> str:
    if not name.startswith(CUSTOM):
        strategies.constructor(name)
    return name


def _recovery(name: str) -> str:
    parse(name)
    return name


CriterionName = Annotated[str, AfterValidator(_criterion)]
"""A registered criterion."""
CriterionOrObject = Annotated[str, AfterValidator(_criterion_or_object)]
"""A registered criterion, or the repr of one that was given as an object."""
StrategyOrObject = Annotated[str, AfterValidator(_strategy_or_object)]
"""A registered search strategy, or the repr of one that was given as an object."""
RecoveryName = Annotated[str, AfterValidator(_recovery)]
"""A chain of registered recoveries; what "" stands for is up to the key."""
