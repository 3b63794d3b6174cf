"""Random channel pruning: search, cut, repair, verify and fine-tune convolutional networks."""

from typing import TYPE_CHECKING, Any

from randprune.artifact import load, save
from randprune.cost import Budget
from randprune.criteria import score
from randprune.errors import (
    ArtifactError,
    DataError,
    InfeasibleBudgetError,
    InvalidInputError,
    RandpruneError,
    StorageError,
    UnsupportedModelError,
    VerificationError,
    WeightsError,
)
from randprune.graph.trace import trace
from randprune.search import RandomSearch, UniformSearch
from randprune.space import ChannelGroup, FrozenChannels, Selection, Slot, Space
from randprune.surgery import cut, select, verify

if TYPE_CHECKING:
    from randprune.pipeline import PruneResult, prune, run_recipe
    from randprune.recipe import PruneRecipe

__version__ = "0.1.0"

# Imported when first used: training and recipes take longer to import than all of the rest.
_LATER = {
    "PruneRecipe": "randprune.recipe",
    "PruneResult": "randprune.pipeline",
    "prune": "randprune.pipeline",
    "run_recipe": "randprune.pipeline",
}

__all__ = [
    "ArtifactError",
    "Budget",
    "ChannelGroup",
    "DataError",
    "FrozenChannels",
    "InfeasibleBudgetError",
    "InvalidInputError",
    "PruneRecipe",
    "PruneResult",
    "RandomSearch",
    "RandpruneError",
    "Selection",
    "Slot",
    "Space",
    "StorageError",
    "UniformSearch",
    "UnsupportedModelError",
    "VerificationError",
    "WeightsError",
    "cut",
    "load",
    "prune",
    "run_recipe",
    "save",
    "score",
    "select",
    "trace",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'randprune' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
