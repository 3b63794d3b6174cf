"""Jobs as TOML files: validated, with one clear message per mistake, and written back exactly."""

from randprune.recipe.base import RecipeBase, Section
from randprune.recipe.job import (
    BudgetSection,
    DataSection,
    JobRecipe,
    ModelSection,
    Names,
    OutputSection,
)
from randprune.recipe.names import CUSTOM
from randprune.recipe.prune import FinalistsSection, FinetuneSection, PruneRecipe, SearchSection
from randprune.recipe.scratch import ScratchRecipe, SupernetSection, WidenSection
from randprune.recipe.shareable import shareable_toml
from randprune.recipe.toml import dump_toml

__all__ = [
    "CUSTOM",
    "BudgetSection",
    "DataSection",
    "FinalistsSection",
    "FinetuneSection",
    "JobRecipe",
    "ModelSection",
    "Names",
    "OutputSection",
    "PruneRecipe",
    "RecipeBase",
    "ScratchRecipe",
    "SearchSection",
    "Section",
    "SupernetSection",
    "WidenSection",
    "dump_toml",
    "shareable_toml",
]
