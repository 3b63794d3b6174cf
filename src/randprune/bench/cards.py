"""A card of one network: what random sub-networks of it are worth, by cost and by how many.

Whoever has a method for this network finds here what it has to beat. For each budget random
configurations are drawn, cut, repaired without training and judged on the search images
(`randprune.bench.pools`); the card says where one random network lies, where the best of n new ones
will lie (exact for any distribution, see `stats.prediction`), and what uniform widths and the dense
network do on the same images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from randprune.bench.pools import Pool, opened
from randprune.bench.stats import best_of_n, predicted_best
from randprune.jobs.progress import Progress, Silent
from randprune.recipe import PruneRecipe
from randprune.tasks import Metric

BEST_OF = (1, 10, 100)
COVERAGE = 0.9


@dataclass(frozen=True, slots=True)
class Best:
    """The best of `n` new random networks: expected, and where it lies with 90 % probability.

    `mean` is None where fewer than n were drawn, an end of the interval where they are too few.
    """

    n: int
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One budget. All are scores of the task's metric, higher = better."""

    pool: Pool
    best: tuple[Best, ...]

    @property
    def ratio(self) -> float:
        """The share of the dense cost."""
        return self.pool.ratio


@dataclass(frozen=True, slots=True, eq=False)
class Card:
    """What random sub-networks of one network are worth.

    Attributes:
        recipe: how they were drawn, repaired and judged.
        images: how many judged them.
        dense: the score of the dense network on them.
        metric: what scores are of.
        levels: by budget, in the order asked for.
    """

    recipe: PruneRecipe
    images: int
    dense: float
    metric: Metric
    levels: tuple[Level, ...]


def make_card(
    recipe: PruneRecipe,
    folder: Path,
    *,
    progress: Progress | None = None,
    device: str | None = None,
) -> Card:
    """Draw random configurations at every budget of a recipe, and say what they are worth.

    Args:
        recipe: see `randprune.bench.pools.opened`; `budget.ratios`, or its one ratio.
        folder: for records.
        progress: is told how far it is.
        device: where networks are evaluated.

    Raises:
        InfeasibleBudgetError: one of the budgets is out of reach; nothing is begun.
        DataError: all random configurations of a budget failed.
    """
    ratios = recipe.budget.ratios or (recipe.budget.ratio,)
    with opened(recipe, folder, progress or Silent(), device) as pools:
        for ratio in ratios:
            pools.check(ratio)
        found = [level_of(pools.at(ratio, f"{100 * ratio:g} %")) for ratio in ratios]
        images = len(pools.session.ranking_images)
        metric = pools.session.task.metric
        return Card(pools.recipe, images, pools.dense(), metric, tuple(found))


def level_of(pool: Pool, counts: Sequence[int] = BEST_OF) -> Level:
    """What the card says of one budget."""
    drawn = len(pool.scores)
    best = []
    for n in counts:
        mean = float(best_of_n(pool.scores, [n]).mean[0]) if n <= drawn else None
        best.append(Best(n, mean, *predicted_best(pool.scores, n, COVERAGE)))
    return Level(pool, tuple(best))
