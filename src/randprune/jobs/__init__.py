"""The main job: a trained network and images in, a smaller verified network out.

    result = prune(model, data, budget=0.5, out="runs/half")
    result = run_recipe(PruneRecipe.load("recipe.toml"))

All jobs, and benchmarks, work on a `randprune.jobs.session.Session`.
"""

from randprune.jobs.api import (
    prune as prune,
    prune_from_scratch as prune_from_scratch,
    run_recipe as run_recipe,
    run_scratch_recipe as run_scratch_recipe,
)
from randprune.jobs.candidates import (
    Evaluations as Evaluations,
    Repaired as Repaired,
    Slices as Slices,
)
from randprune.jobs.curve import (
    PruneCurve as PruneCurve,
)
from randprune.jobs.progress import (
    Progress as Progress,
    Silent as Silent,
)
from randprune.jobs.quality import (
    Judge as Judge,
    Quality as Quality,
)
from randprune.jobs.ranking import (
    best_first as best_first,
    rank as rank,
)
from randprune.jobs.result import (
    PruneResult as PruneResult,
)
from randprune.jobs.session import (
    Session as Session,
)
from randprune.jobs.steps import (
    FoundNetwork as FoundNetwork,
    SearchResult as SearchResult,
    repair as repair,
    search as search,
)
