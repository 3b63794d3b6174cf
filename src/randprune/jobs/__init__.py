"""The main job: a trained network and images in, a smaller verified network out.

    result = prune(model, data, budget=0.5, out="runs/half")
    result = run_recipe(PruneRecipe.load("recipe.toml"))

All jobs, and benchmarks, work on a `randprune.jobs.session.Session`.
"""

from randprune.jobs.api import prune, run_recipe
from randprune.jobs.candidates import Evaluations, Repaired, Slices
from randprune.jobs.progress import Progress, Silent
from randprune.jobs.quality import Judge, Quality
from randprune.jobs.ranking import best_first, rank
from randprune.jobs.result import PruneResult
from randprune.jobs.scratch_api import prune_from_scratch, run_scratch_recipe
from randprune.jobs.session import Session
from randprune.jobs.steps import Found, SearchResult, repair, search

__all__ = [
    "Evaluations",
    "Found",
    "Judge",
    "Progress",
    "PruneResult",
    "Quality",
    "Repaired",
    "SearchResult",
    "Session",
    "Silent",
    "Slices",
    "best_first",
    "prune",
    "prune_from_scratch",
    "rank",
    "repair",
    "run_recipe",
    "run_scratch_recipe",
    "search",
]
