"""The main job: a trained network and images in, a smaller verified network out.

    result = prune(model, data, budget=0.5, out="runs/half")
    result = run_recipe(PruneRecipe.load("recipe.toml"))

Its parts serve other jobs too: `make_candidate`, `evaluate_candidate`, `Judge`, `best_first`.
"""

from randprune.pipeline.api import prune, run_recipe
from randprune.pipeline.candidates import best_first, evaluate_candidate, make_candidate
from randprune.pipeline.judge import Judge, Quality, quality_of, rank
from randprune.pipeline.progress import Progress, Silent
from randprune.pipeline.result import PruneResult
from randprune.pipeline.scratch_api import prune_from_scratch, run_scratch_recipe

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
