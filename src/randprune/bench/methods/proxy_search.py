"""The best of many random configurations by a prediction alone, without a single forward pass.

Method. Each group has a table of what keeping k of its channels costs at the network's outputs
(`randprune.recovery.sensitivity`); a configuration's prediction is the sum over groups. Of
`draws` random configurations the one with the best prediction is proposed.

Known shortcomings. Groups interact, the prediction adds up; the best of many draws exploits its
flaws (`randprune.strategies.proxy`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from randprune.bench.methods.base import Task, check_count, methods
from randprune.space import Selection


@methods.register("best_by_proxy")
@dataclass(frozen=True)
class BestByProxy:
    """The best prediction among random configurations.

    Args:
        draws: how many configurations are predicted.
    """

    draws: int = 10_000
    uses_criterion: ClassVar[bool] = True
    needs_trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("best_by_proxy", "draws", self.draws)

    @property
    def words(self) -> str:
        """What it does."""
        return (
            f"{self.draws:,} random configurations, the best by predicted error alone; no "
            "candidate is evaluated. The criterion ranks the channels."
        )

    def propose(self, task: Task) -> Selection:
        """The best prediction; of equally good ones the first."""
        widths = task.random_widths(self.draws)
        return task.select(widths[int(np.argmax(task.proxy(widths)))])
