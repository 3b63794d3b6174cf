"""Jobs as TOML files: validated, with one clear message per mistake, and written back exactly."""

from randprune.recipe.base import (
    RecipeBase as RecipeBase,
)
from randprune.recipe.base import (
    Section as Section,
)
from randprune.recipe.job import (
    BudgetSection as BudgetSection,
)
from randprune.recipe.job import (
    DataSection as DataSection,
)
from randprune.recipe.job import (
    JobRecipe as JobRecipe,
)
from randprune.recipe.job import (
    ModelSection as ModelSection,
)
from randprune.recipe.job import (
    Names as Names,
)
from randprune.recipe.job import (
    OutputSection as OutputSection,
)
from randprune.recipe.names import (
    CUSTOM as CUSTOM,
)
from randprune.recipe.prune import (
    FinalistsSection as FinalistsSection,
)
from randprune.recipe.prune import (
    FinetuneSection as FinetuneSection,
)
from randprune.recipe.prune import (
    PruneRecipe as PruneRecipe,
)
from randprune.recipe.prune import (
    SearchSection as SearchSection,
)
from randprune.recipe.scratch import (
    ScratchRecipe as ScratchRecipe,
)
from randprune.recipe.scratch import (
    SupernetSection as SupernetSection,
)
from randprune.recipe.scratch import (
    WidenSection as WidenSection,
)
from randprune.recipe.shareable import (
    shareable_toml as shareable_toml,
)
from randprune.recipe.toml import (
    dump_toml as dump_toml,
)
