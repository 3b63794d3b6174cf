"""The main job: a trained network and images in, a smaller verified network out.

    result = prune(model, data, budget=0.5, out="runs/half")
    result = run_recipe(PruneRecipe.load("recipe.toml"))

Its parts serve other jobs too: `make_candidate`, `evaluate_candidate`, `Judge`, `best_first`.
"""

from randprune.jobs.api import prune, run_recipe
from randprune.jobs.candidates import best_first, evaluate_candidate, make_candidate
from randprune.jobs.judge import Judge, Quality, quality_of, rank
from randprune.jobs.progress import Progress, Silent
from randprune.jobs.result import PruneResult
from randprune.jobs.scratch_api import prune_from_scratch, run_scratch_recipe

__all__ = [
    "Judge",
    "Progress",
    "PruneResult",
    "Quality",
    "Silent",
    "best_first",
    "evaluate_candidate",
    "make_candidate",
    "prune",
    "prune_from_scratch",
    "quality_of",
    "rank",
    "run_recipe",
    "run_scratch_recipe",
]
