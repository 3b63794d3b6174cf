"""Where a configuration lies among random ones: does it beat them, all else being equal?

For each configuration, random ones of the same cost are drawn; all are cut from the same trained
network, with channels ranked by the same criterion, repaired alike and judged on the same images:
what is compared is what a search would see. (The question of Li et al., "Revisiting random channel
pruning", CVPR 2022, put to configurations that others have published.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from randprune.bench.configurations import Configuration
from randprune.bench.pools import Pool, Worth, opened
from randprune.errors import InvalidInputError
from randprune.jobs.progress import Progress, Silent
from randprune.recipe import PruneRecipe
from randprune.store import Accuracy


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A configuration among random ones of its cost.

    Attributes:
        configuration: as it was given.
        worth: of its network.
        pool: the random ones.
    """

    configuration: Configuration
    worth: Worth
    pool: Pool

    @property
    def beaten(self) -> int:
        """How many random ones are worth less."""
        return int((self.pool.values < self.worth.value).sum())

    @property
    def share(self) -> float:
        """Of random ones that are worth less."""
        return self.beaten / len(self.pool.values)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share among all random ones, 95 % (Wilson)."""
        return Accuracy(self.beaten, len(self.pool.values)).interval()


def place(
    recipe: PruneRecipe,
    configurations: Sequence[Configuration],
    folder: Path,
    *,
    progress: Progress | None = None,
    device: str | None = None,
) -> Iterator[Placed]:
    """Place configurations one after the other; each is yielded when it is known.

    Args:
        recipe: see `randprune.bench.pools.opened`; its ratio is each configuration's own.
        configurations: of this network.
        folder: for records.
        progress: is told how far it is.
        device: where networks are evaluated.

    Raises:
        InvalidInputError: a configuration of another network, or one that cuts nothing.
        InfeasibleBudgetError: no random configuration has a configuration's cost.
        DataError: a configuration, or all random ones, could not be evaluated.
    """
    with opened(recipe, folder, progress or Silent(), device) as pools:
        ratios = [pools.ratio_of(configuration) for configuration in configurations]
        for configuration, ratio in zip(configurations, ratios, strict=True):
            if not ratio < 1.0:
                raise InvalidInputError(
                    f"The configuration {configuration.name!r} cuts nothing from this network."
                )
            pools.check(ratio)
        for configuration, ratio in zip(configurations, ratios, strict=True):
            pool = pools.at(ratio, configuration.name, [configuration])
            yield Placed(configuration, pool.given[0], pool)
