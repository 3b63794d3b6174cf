"""Random channel pruning: search, cut, repair, verify and fine-tune convolutional networks.

Public are the modules that define `__all__`, with the names in it: this one, and those that
docs/python-api.md lists. Every other module is private and may change with any version.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from randprune.artifact import load as load, save as save
    from randprune.cost import Budget as Budget
    from randprune.criteria import score as score
    from randprune.errors import (
        ArtifactError as ArtifactError,
        DataError as DataError,
        InfeasibleBudgetError as InfeasibleBudgetError,
        InvalidInputError as InvalidInputError,
        RandpruneError as RandpruneError,
        StorageError as StorageError,
        TrainerError as TrainerError,
        UnsupportedModelError as UnsupportedModelError,
        VerificationError as VerificationError,
        WeightsError as WeightsError,
    )
    from randprune.graph.trace import trace as trace
    from randprune.jobs import (
        PruneCurve as PruneCurve,
        PruneResult as PruneResult,
        SearchResult as SearchResult,
        prune as prune,
        prune_from_scratch as prune_from_scratch,
        repair as repair,
        run_recipe as run_recipe,
        run_scratch_recipe as run_scratch_recipe,
        search as search,
    )
    from randprune.recipe import PruneRecipe as PruneRecipe, ScratchRecipe as ScratchRecipe
    from randprune.space import (
        ChannelGroup as ChannelGroup,
        FrozenChannels as FrozenChannels,
        Selection as Selection,
        Slot as Slot,
        Space as Space,
    )
    from randprune.strategies import RandomSearch as RandomSearch, UniformSearch as UniformSearch
    from randprune.surgery import cut as cut, select as select, verify as verify
    from randprune.widening import widen as widen, widening_of as widening_of

__version__ = "0.1.0"

# Where each public name is defined. They are imported when first used, so that the command line's
# help, the records and the search strategies do not wait for torch.
_HOMES = {
    "randprune.artifact": ("load", "save"),
    "randprune.cost": ("Budget",),
    "randprune.criteria": ("score",),
    "randprune.errors": (
        "ArtifactError",
        "DataError",
        "InfeasibleBudgetError",
        "InvalidInputError",
        "RandpruneError",
        "StorageError",
        "TrainerError",
        "UnsupportedModelError",
        "VerificationError",
        "WeightsError",
    ),
    "randprune.graph.trace": ("trace",),
    "randprune.jobs": (
        "PruneCurve",
        "PruneResult",
        "SearchResult",
        "prune",
        "prune_from_scratch",
        "repair",
        "run_recipe",
        "run_scratch_recipe",
        "search",
    ),
    "randprune.recipe": (
        "PruneRecipe",
        "ScratchRecipe",
    ),
    "randprune.strategies": ("RandomSearch", "UniformSearch"),
    "randprune.space": ("ChannelGroup", "FrozenChannels", "Selection", "Slot", "Space"),
    "randprune.surgery": ("cut", "select", "verify"),
    "randprune.widening": ("widen", "widening_of"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_MODULE_OF, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
