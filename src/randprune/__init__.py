"""Random channel pruning: search, cut, repair, verify and fine-tune convolutional networks."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from randprune.artifact import load as load
    from randprune.artifact import save as save
    from randprune.cost import Budget as Budget
    from randprune.criteria import score as score
    from randprune.errors import ArtifactError as ArtifactError
    from randprune.errors import DataError as DataError
    from randprune.errors import InfeasibleBudgetError as InfeasibleBudgetError
    from randprune.errors import InvalidInputError as InvalidInputError
    from randprune.errors import RandpruneError as RandpruneError
    from randprune.errors import StorageError as StorageError
    from randprune.errors import TrainerError as TrainerError
    from randprune.errors import UnsupportedModelError as UnsupportedModelError
    from randprune.errors import VerificationError as VerificationError
    from randprune.errors import WeightsError as WeightsError
    from randprune.graph.trace import trace as trace
    from randprune.jobs import PruneResult as PruneResult
    from randprune.jobs import SearchResult as SearchResult
    from randprune.jobs import prune as prune
    from randprune.jobs import prune_from_scratch as prune_from_scratch
    from randprune.jobs import repair as repair
    from randprune.jobs import run_recipe as run_recipe
    from randprune.jobs import run_scratch_recipe as run_scratch_recipe
    from randprune.jobs import search as search  # type: ignore[no-redef]
    from randprune.recipe import PruneRecipe as PruneRecipe
    from randprune.recipe import ScratchRecipe as ScratchRecipe
    from randprune.search import RandomSearch as RandomSearch
    from randprune.search import UniformSearch as UniformSearch
    from randprune.space import ChannelGroup as ChannelGroup
    from randprune.space import FrozenChannels as FrozenChannels
    from randprune.space import Selection as Selection
    from randprune.space import Slot as Slot
    from randprune.space import Space as Space
    from randprune.surgery import cut as cut
    from randprune.surgery import select as select
    from randprune.surgery import verify as verify
    from randprune.widening import widen as widen
    from randprune.widening import widening_of as widening_of

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
    "randprune.search": ("RandomSearch", "UniformSearch"),
    "randprune.space": ("ChannelGroup", "FrozenChannels", "Selection", "Slot", "Space"),
    "randprune.surgery": ("cut", "select", "verify"),
    "randprune.widening": ("widen", "widening_of"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_MODULE_OF, "__version__"]  # noqa: PLE0604


class _Package(ModuleType):
    """The package's own type: `randprune.search` is the function, also once its folder is loaded.

    The import of a submodule sets an attribute of that name; `from randprune.search import ...`
    does not need it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name == "search" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
