"""Names of registered things as types of recipe keys: what is not registered is refused.

Nothing is imported to find out: what an installed package registers is known by its entry points.
What the plug-ins of a recipe register is known when the job starts, which imports them; until then
names in such a recipe are taken as they are (`PLUGINS_TO_COME`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from randprune.criteria import criteria
from randprune.recovery import names_of, recoveries
from randprune.strategies import strategies
from randprune.tasks import tasks

# Stands before the repr of a criterion or strategy that was given as an object.
CUSTOM = "custom:"


# In the context of a validation: the recipe has plug-ins that are not imported yet.
PLUGINS_TO_COME = "plugins_to_come"


def plugins_to_come(info: ValidationInfo) -> bool:
    """Whether any name may be one that a plug-in will register."""
    return bool(info.context and info.context.get(PLUGINS_TO_COME))


def _criterion(name: str, info: ValidationInfo) -> str:
    return name if plugins_to_come(info) else criteria.check(name)


def _criterion_or_object(name: str, info: ValidationInfo) -> str:
    return name if name.startswith(CUSTOM) else _criterion(name, info)


def _strategy_or_object(name: str, info: ValidationInfo) -> str:
    return name if name.startswith(CUSTOM) or plugins_to_come(info) else strategies.check(name)


def _recovery(name: str, info: ValidationInfo) -> str:
    for step in names_of(name):
        if not plugins_to_come(info):
            recoveries.check(step)
    return name


def _task(name: str, info: ValidationInfo) -> str:
    return name if name.startswith(CUSTOM) or plugins_to_come(info) else tasks.check(name)


CriterionName = Annotated[str, AfterValidator(_criterion)]
"""A registered criterion."""
CriterionOrObject = Annotated[str, AfterValidator(_criterion_or_object)]
"""A registered criterion, or the repr of one that was given as an object."""
StrategyOrObject = Annotated[str, AfterValidator(_strategy_or_object)]
"""A registered search strategy, or the repr of one that was given as an object."""
TaskOrObject = Annotated[str, AfterValidator(_task)]
"""A registered task, or the repr of one that was given as an object."""
RecoveryName = Annotated[str, AfterValidator(_recovery)]
"""A chain of registered recoveries; what "" stands for is up to the key."""
