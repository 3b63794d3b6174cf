"""Random search: the baseline that every other method stands beside.

Method. `candidates` random configurations within the budget; in each, the criterion ranks the
channels of every group; each is cut, repaired without training and evaluated on the search images;
the best one is proposed. From scratch, each is evaluated with shared weights instead. With one
candidate it is a random configuration without any search.

Li et al., "Revisiting Random Channel Pruning for Neural Network Compression", CVPR 2022. Differs
from the paper: sampling law, number of candidates and evaluation are ours, see
`randprune.strategies.random`.

Known shortcomings. Candidates are compared after a quick repair, not after training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from randprune.bench.methods.base import Task, check_count, methods
from randprune.space import Selection
from randprune.strategies import RandomSearch


@methods.register("random_search")
@dataclass(frozen=True)
class RandomSearchMethod:
    """The best of random configurations.

    Args:
        candidates: how many are evaluated.
        stream: 0: the configurations that all rows of a draw share; k: its own ones, the k-th. Rows
            that differ in this alone are the same method, as an A/A check wants them.
    """

    candidates: int = 50
    stream: int = 0
    uses_criterion: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("random_search", "candidates", self.candidates)
        check_count("random_search", "stream", self.stream, 0)

    @property
    def words(self) -> str:
        """What it does."""
        if self.candidates == 1:
            return "One random configuration within the budget, without a search."
        return (
            f"{self.candidates} random configurations within the budget, compared on the search "
            "images before any training; the best one is proposed."
        )

    def propose(self, task: Task) -> Selection:
        """Evaluate all, propose the best; of equally good ones the first."""
        strategy = RandomSearch(task.limits.min_keep, task.limits.round_to)
        if self.stream:
            task = replace(task, rng=task.rng.spawn(self.stream)[-1])
        return task.select(task.best_of(strategy, self.candidates))
