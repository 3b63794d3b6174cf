"""What a method of the benchmark is: it proposes which channels stay, and nothing else.

The runner cuts, verifies, repairs, fine-tunes and tests every proposal in the same way, and counts
what the method looked at. A method never sees a test image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from randprune.bench.meter import CountedSplit
from randprune.cost import Budget, FloatArray
from randprune.errors import DataError, InvalidInputError, quoted
from randprune.jobs.search_loop import search
from randprune.registry import Registry
from randprune.space import IntArray, Selection, Space
from randprune.strategies import RandomSearch, Strategy, UniformSearch
from randprune.surgery import select


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on widths, the same for all methods of a run."""

    min_keep: float
    round_to: int


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a method gets to propose from; everything that it uses is counted.

    Attributes:
        model: a copy of the dense network in evaluation mode; methods may do with it what they
            like.
        space: its channel groups.
        budget: what the proposal must meet.
        limits: on widths.
        scores: of the row's criterion, one (width,) tensor a group, higher = keep.
        criterion: its name.
        rng: decides everything random; the same for all criteria of a draw, so that methods that
            draw configurations from it, first of all, draw the same ones.
        fit, calibration, search: disjoint parts of the training images. Each image that a pass
            yields counts as one forward pass of the dense network; `part.through(macs)` is the same
            part for a network of another cost.
        evaluate: widths (G,) -> quality of the network on the search images after the quick
            repair, higher = better; recorded as a candidate. -inf where it could not be made.
        tables: -> what each width of each group costs at the network's outputs, one (width + 1,)
            array a group, lower = better; see `randprune.recovery.sensitivity`.
        proxy: widths (N, G) -> predicted quality (N,) without a forward pass, higher = better.
        rescore: selection -> scores of the row's criterion for the channels it keeps, of the
            network that is cut accordingly and repaired; one (kept,) tensor a group.
        random_scores: one (width,) tensor a group, drawn by the task's own seed.
        uniform_of: where uniform widths are taken: `space` and `budget`, or from scratch, where
            `space` is that of a widened network, the dense network's space and its budget.

    From scratch there is no trained network: `model` has random weights, `tables`, `proxy` and
    `rescore` raise, and of a proposal its widths alone count; the first channels of each group are
    kept.
    """

    model: nn.Module
    space: Space
    budget: Budget
    limits: Limits
    scores: Sequence[Tensor]
    criterion: str
    rng: np.random.Generator
    fit: CountedSplit
    calibration: CountedSplit
    search: CountedSplit
    evaluate: Callable[[IntArray], float]
    tables: Callable[[], Sequence[FloatArray]]
    proxy: Callable[[IntArray], FloatArray]
    rescore: Callable[[Selection], list[Tensor]]
    random_scores: Callable[[], Sequence[Tensor]]
    uniform_of: tuple[Space, Budget]

    def select(self, widths: npt.ArrayLike, scores: Sequence[Tensor] | None = None) -> Selection:
        """The channels that the criterion (or other `scores`) keeps at these widths."""
        return select(self.space, self.scores if scores is None else scores, widths)

    def random_widths(self, count: int) -> IntArray:
        """`count` random configurations within budget and limits, int64 (count, G)."""
        strategy = RandomSearch(self.limits.min_keep, self.limits.round_to)
        return strategy.ask(self.space, self.budget, count, self.rng)

    def best_of(self, strategy: Strategy, count: int) -> IntArray:
        """The best of `count` configurations that a strategy proposes, int64 (G,).

        Each is evaluated, as `evaluate` does it; a strategy that learns is told the values.

        Raises:
            DataError: all of them failed.
        """
        found = search(strategy, self.space, self.budget, count, self.rng, self._values)
        if not np.isfinite(found.values).any():
            raise DataError(f"All {count} candidates of {strategy!r} failed.")
        widths: IntArray = found.widths[found.best]
        return widths

    def _values(self, rows: IntArray) -> list[float]:
        return [self.evaluate(widths) for widths in rows]

    def uniform_widths(self, budget: Budget | None = None) -> IntArray:
        """The uniform configuration of the budget, int64 (G,).

        Args:
            budget: another one, such as that of a step on the way.

        Raises:
            InfeasibleBudgetError: no uniform configuration meets the budget.
        """
        # Uniform widths have no lower bound: the budget gives the one ratio that they can have.
        strategy = UniformSearch(round_to=self.limits.round_to)
        space, final = self.uniform_of
        widths: IntArray = strategy.ask(space, budget or final, 1, self.rng)[0]
        return widths


@runtime_checkable
class Method(Protocol):
    """Proposes a pruned network. Constructors only store arguments; `repr` rebuilds the object.

    A method that means nothing without a trained network has a class attribute `needs_trained` that
    is true: recipes from scratch refuse it.
    """

    @property
    def uses_criterion(self) -> bool:
        """Whether the row's criterion matters; without it the method has one row, "random"."""
        ...

    @property
    def words(self) -> str:
        """One sentence for the report: what it does."""
        ...

    def propose(self, task: Task) -> Selection:
        """The channels that stay, within the task's budget. Called once per row and draw."""
        ...


def check_count(method: str, name: str, value: int, least: int = 1) -> None:
    """Raise `InvalidInputError` unless a method's parameter is a count of at least `least`."""
    if isinstance(value, bool) or value < least:
        raise InvalidInputError(
            f"The {name!r} parameter of {method} must be an integer of at least {least}. "
            f"Got {quoted(value)} instead."
        )


methods: Registry[Method] = Registry("method", "randprune.methods")
