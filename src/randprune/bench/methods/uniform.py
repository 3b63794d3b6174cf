"""Uniform width: the same keep ratio in every group, channels ranked by the criterion.

The control that shows what choosing configurations is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from randprune.bench.methods.base import Task, methods
from randprune.space import Selection


@methods.register("uniform")
@dataclass(frozen=True)
class UniformWidth:
    """The same keep ratio everywhere."""

    uses_criterion: ClassVar[bool] = True
    words: ClassVar[str] = "The same share of channels in every layer of the dense network."

    def propose(self, task: Task) -> Selection:
        """The criterion's channels at uniform widths."""
        return task.select(task.uniform_widths())
