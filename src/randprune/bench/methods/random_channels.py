"""Random channels: the control that shows what ranking channels is worth.

Not to be confused with random search, where configurations are random and channels are ranked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from randprune.bench.methods.base import Task, methods
from randprune.errors import InvalidInputError, quoted
from randprune.space import Selection


@methods.register("random_channels")
@dataclass(frozen=True)
class RandomChannels:
    """Channels drawn at random.

    Args:
        widths: "uniform", or "random" for the first configuration that random search evaluates.
    """

    widths: str = "uniform"
    uses_criterion: ClassVar[bool] = False
    needs_trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.widths not in ("uniform", "random"):
            raise InvalidInputError(
                "The 'widths' parameter of random_channels must be 'uniform' or 'random'. "
                f"Got {quoted(self.widths)} instead."
            )

    @property
    def words(self) -> str:
        """What it does."""
        return f"Channels drawn at random, at {self.widths} widths."

    def propose(self, task: Task) -> Selection:
        """Random channels of the draw."""
        uniform = self.widths == "uniform"
        widths = task.uniform_widths() if uniform else task.random_widths(1)[0]
        return task.select(widths, task.random_scores())
