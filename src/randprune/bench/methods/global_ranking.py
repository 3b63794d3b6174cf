"""Global ranking: the scores of all groups are made comparable and ranked together.

Method. Scores of a group are divided by a statistic of that group; then the lowest ones anywhere
are cut until the budget is met, each group keeping its least width. Where one channel more or
fewer jumps over the tolerance, single groups are stepped onto the budget.

The usual way in which structured pruning allots widths, e.g. Liu et al., "Learning efficient
convolutional networks through network slimming", ICCV 2017 (raw scale factors), and Molchanov et
al., "Pruning convolutional neural networks for resource efficient inference", ICLR 2017 (scores
divided by the layer's l2 norm).

Known shortcomings. Which statistic makes layers comparable is a guess; it decides the widths. The
l2 norm and the maximum grow with the number of channels, so that wide layers look unimportant; the
mean, which is the default, does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from randprune.bench.methods.base import Limits, Task, methods
from randprune.bench.methods.on_budget import on_budget
from randprune.cost import Budget, FloatArray
from randprune.errors import InvalidInputError, quoted
from randprune.space import IntArray, Selection, Space
from randprune.strategies.feasible import WidthGrid, require_reachable
from randprune.strategies.shift import Target

_NORMS: dict[str, Callable[[FloatArray], float]] = {
    "none": lambda scores: 1.0,
    "mean": lambda scores: float(np.mean(np.abs(scores))),
    "max": lambda scores: float(np.max(np.abs(scores))),
    "l2": lambda scores: float(np.linalg.norm(scores)),
}


@methods.register("global_ranking")
@dataclass(frozen=True)
class GlobalRanking:
    """All channels of the network in one ranking.

    Args:
        norm: what a group's scores are divided by: "mean", "max", "l2" of their magnitudes, or
            "none" for raw scores, as network slimming has it.
    """

    norm: str = "mean"
    uses_criterion: ClassVar[bool] = True
    needs_trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_norm("global_ranking", self.norm)

    @property
    def words(self) -> str:
        """What it does."""
        return (
            "All channels in one ranking by the criterion's scores"
            f"{'' if self.norm == 'none' else f', divided by the {self.norm} of their layer'}; "
            "the lowest go until the budget is met."
        )

    def propose(self, task: Task) -> Selection:
        """The highest-ranking channels that fit."""
        widths = ranked_widths(task.space, task.budget, task.limits, task.scores, self.norm)
        return task.select(widths)


def ranked_widths(
    space: Space, budget: Budget, limits: Limits, scores: Sequence[Tensor], norm: str
) -> IntArray:
    """Widths (G,) that a common ranking of all channels gives within the budget.

    Args:
        space: the groups.
        budget: what the widths meet.
        limits: least widths and multiples.
        scores: of the channels that may stay, one tensor a group, higher = keep.
        norm: see `GlobalRanking`.

    Raises:
        InfeasibleBudgetError: out of reach, or no steps from the ranking's widths meet the budget.
    """
    require_reachable(space, budget, limits.min_keep, limits.round_to)
    grid = WidthGrid.of(space, limits.min_keep, limits.round_to)
    target = Target.of(space.cost(budget.metric), budget, grid)
    # Each group's scores from high to low; its k-th entry goes before its (k-1)-th.
    ordered = [descending(group, norm) for group in scores]
    cuts = np.sort(np.concatenate(ordered))

    def widths_above(threshold: float) -> FloatArray:
        kept = [float(np.count_nonzero(group > threshold)) for group in ordered]
        return np.array([kept], dtype=np.float64)

    # The cost falls as the threshold rises: bisection over the sorted scores.
    low, high = -1, len(cuts) - 1
    while high - low > 1:
        middle = (low + high) // 2
        dear = target.ratios(grid.snap(widths_above(cuts[middle])))[0] > target.aim
        low, high = (middle, high) if dear else (low, middle)
    return on_budget(space, budget, limits, widths_above(cuts[high])[0], "global ranking")


def check_norm(method: str, norm: str) -> None:
    """Raise `InvalidInputError` unless a method can divide scores by this."""
    if norm not in _NORMS:
        raise InvalidInputError(
            f"The 'norm' parameter of {method} must be one of {', '.join(_NORMS)}. "
            f"Got {quoted(norm)} instead."
        )


def descending(scores: Tensor, norm: str) -> FloatArray:
    """A group's scores over what they are divided by, from high to low, float64."""
    values = scores.detach().double().cpu().numpy()
    scale = _NORMS[norm](values)
    return np.sort(values / scale if scale > 0 else values)[::-1]
