"""Regularised evolution over widths: learns from the candidates that were evaluated.

Method. The first `population` configurations are random. Each later one is a child: the best of
`tournament` random members of the population is its parent; with probability `crossover` every
group takes its width from this parent or from a second one, at random; every group (at least one)
mutates with probability `mutation` to a new uniform keep ratio; the child is moved onto the budget
by multiplying the odds of all its keep ratios by one scalar (`randprune.strategies.shift`). The
oldest members die, not the worst, so that a lucky evaluation cannot stay for ever.

Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019. Differs
from the paper: crossover, several mutated groups at once, children projected onto a budget.

Known shortcomings. The projection shifts every group a little, so that a child never keeps its
parent's widths exactly; groups at either end of their range move least. Gains need evaluations:
below a few times `population` of them this is random search.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from randprune.cost import Budget, FloatArray
from randprune.errors import InvalidInputError, quoted
from randprune.space import IntArray, Space
from randprune.strategies.base import check_groups, check_request, check_told, strategies
from randprune.strategies.feasible import WidthGrid, as_widths, check_grid, require_reachable
from randprune.strategies.random import RandomSearch
from randprune.strategies.shift import Start, Target, odds, onto_budget, width_odds

# Children that repeat a configuration are bred anew this often; then random ones fill up.
_BREEDING_ROUNDS = 8


@dataclass(slots=True, eq=False)
class EvolutionSearch:
    """Regularised evolution; an adaptive strategy: `tell` it what its proposals were worth.

    One object serves one search: it remembers what it was told, and refuses another space.

    Args:
        population: how many of the configurations told last may become parents.
        tournament: how many of them compete to be a parent.
        mutation: probability that a group's keep ratio is drawn anew.
        crossover: probability that a child has two parents.
        min_keep: least keep ratio of a group, in [0, 1]; at least one channel always remains.
        round_to: widths are multiples of this, or the group's full width.
    """

    population: int = 32
    tournament: int = 8
    mutation: float = 0.1
    crossover: float = 0.5
    min_keep: float = 0.1
    round_to: int = 1
    _members: deque[tuple[IntArray, float]] = field(init=False, repr=False)
    _seen: set[bytes] = field(init=False, repr=False, default_factory=set)
    _asked: int = field(init=False, repr=False, default=0)
    _groups: int | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        check_grid("EvolutionSearch", self.min_keep, self.round_to)
        for name in ("population", "tournament"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(
                    f"The {name!r} parameter of EvolutionSearch must be an integer of at least 1. "
                    f"Got {quoted(value)} instead."
                )
        for name in ("mutation", "crossover"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise InvalidInputError(
                    f"The {name!r} parameter of EvolutionSearch must be a probability in [0, 1]. "
                    f"Got {quoted(value)} instead."
                )
        self._members = deque(maxlen=self.population)

    def ask(self, space: Space, budget: Budget, n: int, rng: np.random.Generator) -> IntArray:
        """`n` configurations, int64 (n, G), all within the budget; new ones as far as possible.

        Random until `population` configurations have been asked for and while nothing was told.

        Raises:
            InfeasibleBudgetError: the budget is out of reach, or too few configurations met it.
        """
        n = check_request(n, rng)
        require_reachable(space, budget, self.min_keep, self.round_to)
        self._check_groups(len(space))
        random = min(n, max(0, self.population - self._asked)) if self._members else n
        found: list[IntArray] = []
        if random < n:
            self._breed_batch(found, n - random, space, budget, rng)
        missing = n - len(found)
        if missing:
            strategy = RandomSearch(self.min_keep, self.round_to)
            rows = strategy.ask(space, budget, missing, rng)
            self._seen.update(row.tobytes() for row in rows)
            found = [*rows, *found]
        self._asked += n
        return np.stack(found)

    def tell(self, widths: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Take note that configurations `widths` (N, G) have the `values` (N,): higher = better."""
        rows, worth = check_told("EvolutionSearch", widths, values)
        self._check_groups(rows.shape[1])
        for row, value in zip(rows, worth.tolist(), strict=True):
            self._members.append((row, value))
            self._seen.add(row.tobytes())

    def _check_groups(self, groups: int) -> None:
        if self._groups is None:
            self._groups = groups
        check_groups("EvolutionSearch", self._groups, groups)

    def _breed_batch(
        self, found: list[IntArray], n: int, space: Space, budget: Budget, rng: np.random.Generator
    ) -> None:
        """Append up to `n` children that fit the budget and were not seen before."""
        grid = WidthGrid.of(space, self.min_keep, self.round_to)
        target = Target.of(space.cost(budget.metric), budget, grid)
        members = np.stack([row for row, _ in self._members])
        values = np.array([value for _, value in self._members])
        genes = width_odds(members, grid)
        for _ in range(_BREEDING_ROUNDS):
            children = self._children(genes, values, n - len(found), rng)
            widths, ratios = onto_budget(children, grid, target, Start())
            for row in as_widths(widths[target.fits(ratios)]):
                if row.tobytes() not in self._seen:
                    self._seen.add(row.tobytes())
                    found.append(row)
            if len(found) == n:
                return

    def _children(
        self, genes: FloatArray, values: FloatArray, n: int, rng: np.random.Generator
    ) -> FloatArray:
        """Odds (n, G) of children before they are moved onto the budget."""
        entrants = rng.integers(len(values), size=(2, n, self.tournament))
        best = np.take_along_axis(entrants, values[entrants].argmax(axis=2)[..., None], axis=2)
        first, second = genes[best[0, :, 0]], genes[best[1, :, 0]]
        shape = first.shape
        crossed = (rng.random((n, 1)) < self.crossover) & (rng.random(shape) < 0.5)
        mutated = rng.random(shape) < self.mutation
        mutated[np.arange(n), rng.integers(shape[1], size=n)] = True
        children = np.where(crossed, second, first)
        return np.where(mutated, odds(rng.random(shape)), children)


strategies.register("evolution")(EvolutionSearch)
