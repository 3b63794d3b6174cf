"""Jobs as TOML files: validated, with one clear message per mistake, and written back exactly."""

from randprune.recipe.base import RecipeBase, Section
from randprune.recipe.prune import (
    CUSTOM,
    BudgetSection,
    DataSection,
    FinalistsSection,
    FinetuneSection,
    ModelSection,
    Names,
    OutputSection,
    PruneRecipe,
    SearchSection,
)
from randprune.recipe.scratch import ScratchRecipe, ScratchSearchSection, WidenSection
from randprune.recipe.toml import dump_toml

__all__ = [
    "CUSTOM",
    "BudgetSection",
    "DataSection",
    "FinalistsSection",
    "FinetuneSection",
    "ModelSection",
    "Names",
    "OutputSection",
    "PruneRecipe",
    "RecipeBase",
    "ScratchRecipe",
    "ScratchSearchSection",
    "SearchSection",
    "Section",
    "WidenSection",
    "dump_toml",
]
