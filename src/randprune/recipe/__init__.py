"""Jobs as TOML files: validated, with one clear message per mistake, and written back exactly."""

from randprune.recipe.base import (
    RecipeBase as RecipeBase,
    Section as Section,
)
from randprune.recipe.job import (
    BudgetSection as BudgetSection,
    DataSection as DataSection,
    JobRecipe as JobRecipe,
    ModelSection as ModelSection,
    Names as Names,
    OutputSection as OutputSection,
)
from randprune.recipe.names import (
    CUSTOM as CUSTOM,
)
from randprune.recipe.prune import (
    FinalistsSection as FinalistsSection,
    FinetuneSection as FinetuneSection,
    PruneRecipe as PruneRecipe,
    PruneSearchSection as PruneSearchSection,
    SearchSection as SearchSection,
)
from randprune.recipe.scratch import (
    ScratchRecipe as ScratchRecipe,
    SupernetSection as SupernetSection,
    WidenSection as WidenSection,
)
from randprune.recipe.toml import (
    dump_toml as dump_toml,
    shareable_toml as shareable_toml,
)
