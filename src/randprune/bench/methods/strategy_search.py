"""A search by one of the strategies of `randprune prune`, on repaired candidates.

Method. The strategy proposes `candidates` configurations within the budget; each is cut by the
criterion's ranks, repaired without training and evaluated on the search images; one that learns is
told in twenty generations. The best one is proposed. Among them:

- "evolution": Liu et al., "MetaPruning", ICCV 2019, and the older regularised evolution. Differs
  from MetaPruning: weights are the trained network's, repaired, instead of a hypernetwork's.
- "spdy": Frantar & Alistarh, ICML 2022: coefficients of the groups' errors, searched by the real
  loss. See `randprune.strategies.spdy` for what differs.
- "lagrangian": optima of measured tables.

Known shortcomings. Those of the strategy; candidates are compared after a quick repair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from randprune.bench.methods.base import Task, check_count, methods
from randprune.jobs.search_loop import create_strategy
from randprune.recipe import SearchSection
from randprune.space import Selection
from randprune.strategies import strategies


@methods.register("strategy_search")
@dataclass(frozen=True)
class StrategySearch:
    """The best configuration that a search strategy finds.

    Args:
        strategy: its registered name.
        candidates: how many are evaluated.
    """

    strategy: str = "evolution"
    candidates: int = 100
    uses_criterion: ClassVar[bool] = True
    needs_trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        strategies.constructor(self.strategy)  # an unknown name is refused here
        check_count("strategy_search", "candidates", self.candidates)

    @property
    def words(self) -> str:
        """What it does."""
        return (
            f"{self.candidates} configurations that the strategy {self.strategy!r} proposes, "
            "compared on the search images before any training; the best one is proposed."
        )

    def propose(self, task: Task) -> Selection:
        """Evaluate all, propose the best; of equally good ones the first."""
        section = SearchSection(
            strategy=self.strategy,
            min_keep=task.limits.min_keep,
            round_to=task.limits.round_to,
        )
        return task.select(task.best_of(create_strategy(section, task.tables), self.candidates))
