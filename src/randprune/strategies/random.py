"""Random search over channel configurations: the paper's baseline.

Method. Every group's keep ratio is uniform in [min_keep, 1], independently; its width is the
nearest allowed one (see `randprune.strategies.feasible`). Two laws put such draws on the budget:

- ``rejection``: draw until the cost is within the tolerance. The law is exactly "uniform ratios,
  given that the budget is met". At 50 % of the MACs one ResNet-50 draw in 2,000 is accepted, beyond
  60 % practically none.
- ``shifted``: multiply the odds of all keep ratios of a draw by one scalar so that it meets the
  budget (`randprune.strategies.shift`). Nearly every draw is accepted, at every reachable budget.

Li et al., "Revisiting Random Channel Pruning for Neural Network Compression", CVPR 2022. Differs
from the paper: neither its law, nor min_keep, nor its tolerance could be read; these are ours.

Known shortcomings. Under the shifted law, groups that carry much of the cost lose a little spread
to the common scalar (ResNet-50 at 50 %: standard deviation of the keep ratio 0.22 in the dearest
group, 0.24 elsewhere; 0.26 before), and costs gather around the middle of the tolerance, whereas
under rejection they fill it. The two laws are not the same where both work: away from the budget
that uniform ratios meet by themselves, rejection moves the groups that carry most of the cost and
leaves the cheap ones alone, while the shifted law moves all groups alike. So ``auto`` names the law
it took (`RandomSearch.resolve`, `Draws.law`), and an experiment across budgets should fix one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from randprune.cost import Budget, FloatArray
from randprune.errors import InvalidInputError, quoted
from randprune.space import IntArray, Space
from randprune.strategies.base import check_request, strategies
from randprune.strategies.feasible import (
    WidthGrid,
    as_widths,
    check_grid,
    reachable,
    require_reachable,
    starved,
)
from randprune.strategies.shift import Target, odds, onto_budget, typical_start

Law = Literal["auto", "rejection", "shifted"]

# "auto" takes rejection where at least 1 in 1,000 draws fits. The trial draws come from a stream of
# their own, so that the law follows from the space and the budget, never from the seed.
_TRIAL_SEED = 0
_TRIAL_DRAWS = 65_536
_TRIAL_ACCEPTED = 65
_START_DRAWS = 64
_BLOCK_BYTES = 1 << 19


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """What one request drew.

    Attributes:
        widths: the accepted configurations in the order of drawing, int64 (n, G).
        law: "rejection" or "shifted".
        drawn: how many draws it took, up to and including the last accepted one.
    """

    widths: IntArray
    law: str
    drawn: int

    @property
    def acceptance(self) -> float:
        """Accepted configurations per draw."""
        return len(self.widths) / self.drawn


@dataclass(frozen=True, slots=True)
class RandomSearch:
    """Independent uniform keep ratios, given the budget.

    Args:
        min_keep: least keep ratio of a group, in [0, 1]; at least one channel always remains.
        round_to: widths are multiples of this, or the group's full width.
        law: "rejection", "shifted", or "auto": rejection where at least one draw in 1,000 fits,
            otherwise shifted. `resolve` names the one that `auto` takes.
        max_draws: give up when more than this many draws per accepted configuration were in vain;
            a hundredth of it under the shifted law, which moves each draw dozens of times first.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from randprune import Budget, trace
        >>> layers = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.Conv2d(24, 2, 1)
        >>> net = nn.Sequential(*layers)
        >>> space = trace(net, torch.zeros(1, 3, 8, 8))
        >>> budget = Budget("macs", 0.5, tolerance=0.02)
        >>> widths = RandomSearch().ask(space, budget, 4, np.random.default_rng(0))
        >>> widths.shape
        (4, 2)
        >>> cost = space.cost("macs")
        >>> bool((abs(cost(widths) / cost.dense - 0.5) <= 0.02).all())
        True
    """

    min_keep: float = 0.1
    round_to: int = 1
    law: Law = "auto"
    max_draws: int = 1_000_000

    def __post_init__(self) -> None:
        check_grid("RandomSearch", self.min_keep, self.round_to)
        if self.law not in ("auto", "rejection", "shifted"):
            raise InvalidInputError(
                "The 'law' parameter of RandomSearch must be 'auto', 'rejection' or 'shifted'. "
                f"Got {quoted(self.law)} instead."
            )
        if isinstance(self.max_draws, bool) or self.max_draws < 1:
            raise InvalidInputError(
                "The 'max_draws' parameter of RandomSearch must be an integer of at least 1. "
                f"Got {quoted(self.max_draws)} instead."
            )

    def ask(self, space: Space, budget: Budget, n: int, rng: np.random.Generator) -> IntArray:
        """`n` random configurations, int64 (n, G), every one within the budget.

        The first rows of a larger request are those of a smaller one with the same seed. `rng`
        gives one seed per call, whatever `n` is and however many draws are needed.

        Raises:
            InfeasibleBudgetError: the budget is out of reach, or too few draws met it.
        """
        return self.sample(space, budget, n, rng).widths

    def sample(self, space: Space, budget: Budget, n: int, rng: np.random.Generator) -> Draws:
        """The configurations that `ask` gives, with the law's name and the number of draws."""
        n = check_request(n, rng)
        strategy = self.resolve(space, budget)
        stream = np.random.Generator(np.random.PCG64(rng.integers(1 << 62, size=2)))
        grid = WidthGrid.of(space, self.min_keep, self.round_to)
        target = Target.of(space.cost(budget.metric), budget, grid)
        shifted = strategy.law == "shifted"
        drawer = _shifted if shifted else _rejected
        allowed = -(-self.max_draws // 100) if shifted else self.max_draws
        accepted: list[IntArray] = []
        found, drawn = 0, 0
        lowest, highest = np.inf, -np.inf
        for widths, ratios in drawer(grid, target, stream, n, allowed):
            keep = np.flatnonzero(target.fits(ratios))[: n - found]
            accepted.append(as_widths(widths[keep]))
            found += keep.size
            if found == n:
                return Draws(np.concatenate(accepted), strategy.law, drawn + int(keep[-1]) + 1)
            drawn += len(widths)
            lowest, highest = min(lowest, ratios.min()), max(highest, ratios.max())
        advice = self._advice(space, budget, strategy.law)
        raise starved(budget, n, found, drawn, (float(lowest), float(highest)), advice)

    def resolve(self, space: Space, budget: Budget) -> RandomSearch:
        """This strategy with the law that it takes on this space and budget: never "auto".

        Raises:
            InfeasibleBudgetError: no allowed widths meet the budget.
        """
        require_reachable(space, budget, self.min_keep, self.round_to)
        if self.law != "auto":
            return self
        grid = WidthGrid.of(space, self.min_keep, self.round_to)
        target = Target.of(space.cost(budget.metric), budget, grid)
        stream = np.random.Generator(np.random.PCG64(_TRIAL_SEED))
        accepted, drawn = 0, 0
        while drawn < _TRIAL_DRAWS and accepted < _TRIAL_ACCEPTED:
            widths = draw_uniform(grid, stream, min(_block_rows(grid), _TRIAL_DRAWS - drawn))
            accepted += int(target.fits(target.ratios(widths)).sum())
            drawn += len(widths)
        return replace(self, law="rejection" if accepted >= _TRIAL_ACCEPTED else "shifted")

    def _advice(self, space: Space, budget: Budget, law: str) -> str:
        low, high = reachable(space, budget.metric, self.min_keep, self.round_to)
        within = f"Within reach are {low:.2f}-{high:.2f} (min_keep {self.min_keep:g}): "
        if law == "rejection":
            return within + f'use law="shifted", or raise max_draws (now {self.max_draws:,}).'
        lower = f" or lower round_to (now {self.round_to})" if self.round_to > 1 else ""
        return within + f"raise the tolerance (now {budget.tolerance:g}){lower}."


strategies.register("random")(RandomSearch)


def draw_uniform(grid: WidthGrid, stream: np.random.Generator, rows: int) -> FloatArray:
    """Widths (rows, G), as float64, of independent keep ratios uniform in [min_keep, 1]."""
    wanted = stream.random((rows, grid.full.size))
    least = grid.min_keep * grid.full
    wanted *= grid.full - least
    wanted += least
    return grid.snap(wanted)


def _block_rows(grid: WidthGrid) -> int:
    """Rows whose float64 widths fit a core's L2 cache; no result depends on it."""
    return max(16, _BLOCK_BYTES // (8 * max(1, grid.full.size)))


def _rejected(
    grid: WidthGrid, target: Target, stream: np.random.Generator, n: int, max_draws: int
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Blocks of draws and their cost ratios, until too many draws are in vain; the caller stops.

    The limit is `max_draws` per accepted row and one more: the block ends exactly on it, so that
    giving up does not depend on the size of blocks.
    """
    drawn, accepted = 0, 0
    block = _block_rows(grid)
    while drawn < (limit := max_draws * (accepted + 1)):
        widths = draw_uniform(grid, stream, min(block, limit - drawn))
        ratios = target.ratios(widths)
        drawn += len(widths)
        accepted += int(np.count_nonzero(target.fits(ratios)))
        yield widths, ratios


def _shifted(
    grid: WidthGrid, target: Target, stream: np.random.Generator, n: int, max_draws: int
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Like `_rejected`, each draw moved onto the budget first."""
    groups = grid.full.size
    trial = np.random.Generator(np.random.PCG64(_TRIAL_SEED))
    start = typical_start(odds(trial.random((_START_DRAWS, groups))), grid, target)
    drawn, accepted = 0, 0
    block = _block_rows(grid)
    while drawn < (limit := max_draws * (accepted + 1)):
        # Nearly every row is accepted: draw about what is missing, not a block to throw away.
        expected = (n - accepted) * (drawn + 1) // (accepted + 1)
        rows = min(block, limit - drawn, max(16, expected))
        widths, ratios = onto_budget(odds(stream.random((rows, groups))), grid, target, start)
        drawn += rows
        accepted += int(np.count_nonzero(target.fits(ratios)))
        yield widths, ratios
