"""Samplers of Optuna over the keep ratios of all groups: TPE, CMA-ES, NSGA-II.

Method. A trial is one keep ratio a group, drawn by the sampler; its odds are multiplied by one
scalar such that the rounded widths meet the budget (`randprune.strategies.shift`), and the trial is
told what that configuration turned out to be worth. (Akiba et al., "Optuna: A next-generation
hyperparameter optimization framework", KDD 2019; TPE: Bergstra et al., NIPS 2011; CMA-ES: Hansen &
Ostermeier, 2001; NSGA-II: Deb et al., 2002, here with one objective, since the cost is given.)

Known shortcomings. Samplers are made for tens of parameters, networks have up to hundreds of
groups; the first ten or so trials of each are random; ratios that differ by their scalar alone are
one configuration, which samplers do not know; CMA-ES needs two groups or more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from randprune.cost import Budget
from randprune.errors import InfeasibleBudgetError, InvalidInputError, quoted
from randprune.space import IntArray, Space
from randprune.strategies.base import check_groups, check_request, check_told, strategies
from randprune.strategies.feasible import WidthGrid, as_widths, check_grid, require_reachable
from randprune.strategies.random import RandomSearch
from randprune.strategies.shift import Start, Target, onto_budget, width_odds

SAMPLERS = ("tpe", "cmaes", "nsga2")

_TRIES = 8
"""Trials whose configuration is known, or misses the budget, are drawn again so often."""
_EDGE = 1e-6
"""Ratios are drawn a hair within their range, where odds are finite."""


@dataclass(slots=True, eq=False)
class OptunaSearch:
    """A sampler of Optuna; an adaptive strategy: `tell` it what its proposals were worth.

    One object serves one search: it remembers what it was told, and refuses another space.

    Args:
        sampler: "tpe", "cmaes" or "nsga2".
        min_keep: least keep ratio of a group, in [0, 1]; at least one channel always remains.
        round_to: widths are multiples of this, or the group's full width.

    Raises:
        InvalidInputError: an unknown sampler, or Optuna is not installed.
    """

    sampler: str = "tpe"
    min_keep: float = 0.1
    round_to: int = 1
    _study: Any = field(init=False, repr=False, default=None)
    _grid: WidthGrid | None = field(init=False, repr=False, default=None)
    _trials: dict[bytes, Any] = field(init=False, repr=False, default_factory=dict)
    """By configuration: the trial that waits for its worth; None once it is told."""

    def __post_init__(self) -> None:
        check_grid("OptunaSearch", self.min_keep, self.round_to)
        if self.sampler not in SAMPLERS:
            raise InvalidInputError(
                f"The 'sampler' parameter of OptunaSearch must be one of {', '.join(SAMPLERS)}. "
                f"Got {quoted(self.sampler)} instead."
            )
        missing = [name for name in ("optuna", "cmaes") if find_spec(name) is None]
        if missing:
            raise InvalidInputError(
                f"The strategy 'optuna' needs {' and '.join(missing)}: "
                "pip install 'randprune[optuna]'."
            )

    def ask(self, space: Space, budget: Budget, n: int, rng: np.random.Generator) -> IntArray:
        """`n` configurations, int64 (n, G), all within the budget; new ones as far as possible.

        Raises:
            InfeasibleBudgetError: the budget is out of reach, or too few configurations met it.
        """
        n = check_request(n, rng)
        require_reachable(space, budget, self.min_keep, self.round_to)
        grid = WidthGrid.of(space, self.min_keep, self.round_to)
        self._begin(grid, rng)
        target = Target.of(space.cost(budget.metric), budget, grid)
        found: list[IntArray] = []
        for _ in range(_TRIES):
            trials = [self._study.ask(self._ranges()) for _ in range(n - len(found))]
            drawn = np.array([list(trial.params.values()) for trial in trials])
            widths, ratios = onto_budget(drawn / (1.0 - drawn), grid, target, Start())
            fits = target.fits(ratios)
            for trial, row, fit in zip(trials, as_widths(widths), fits, strict=True):
                if fit and row.tobytes() not in self._trials:
                    self._trials[row.tobytes()] = trial
                    found.append(row)
                else:
                    self._close(trial)
            if len(found) == n:
                return np.stack(found)
        try:
            rest = RandomSearch(self.min_keep, self.round_to).ask(
                space, budget, n - len(found), rng
            )
        except InfeasibleBudgetError:
            if not found:
                raise
            rest = np.stack([found[i % len(found)] for i in range(n - len(found))])
        return np.concatenate([*(row[None] for row in found), rest])

    def tell(self, widths: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Take note that configurations `widths` (N, G) have the `values` (N,): higher = better."""
        rows, worth = check_told("OptunaSearch", widths, values)
        if self._study is None or self._grid is None:
            return  # nothing was asked: of which space they are is not known
        check_groups("OptunaSearch", self._groups, rows.shape[1])
        for row, value in zip(rows, worth.tolist(), strict=True):
            trial = self._trials.get(row.tobytes())
            if trial is not None:
                self._study.tell(trial, value)
            else:
                self._add(row, value)
            self._trials[row.tobytes()] = None

    # -- the study -----------------------------------------------------------------------------

    def _begin(self, grid: WidthGrid, rng: np.random.Generator) -> None:
        if self._study is not None:
            check_groups("OptunaSearch", self._groups, len(grid.full))
            return
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = int(rng.integers(2**31))
        samplers = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=False),
            "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=seed),
            "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=16),
        }
        self._grid = grid
        self._study = optuna.create_study(sampler=samplers[self.sampler](), direction="maximize")

    def _close(self, trial: Any) -> None:
        """A trial that comes to nothing: its configuration is known, or misses the budget."""
        import optuna

        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def _add(self, row: IntArray, value: float) -> None:
        """A configuration that was not asked for, by the ratios that it has."""
        import optuna

        assert self._grid is not None
        odds = width_odds(row[None], self._grid)[0]
        ratios = np.clip(odds / (1.0 + odds), _EDGE, 1.0 - _EDGE)
        params = {str(g): float(ratio) for g, ratio in enumerate(ratios)}
        trial = optuna.create_trial(params=params, distributions=self._ranges(), value=value)
        self._study.add_trial(trial)

    def _ranges(self) -> dict[str, Any]:
        import optuna

        one = optuna.distributions.FloatDistribution(_EDGE, 1.0 - _EDGE)
        return {str(g): one for g in range(self._groups)}

    @property
    def _groups(self) -> int:
        return 0 if self._grid is None else len(self._grid.full)


strategies.register("optuna")(OptunaSearch)
