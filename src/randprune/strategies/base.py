"""What a search strategy is, and the registry that knows all of them by name.

A strategy proposes configurations; it never sees the network, its weights or any data. Everything
random comes from the generator that the caller passes. An outside package adds its own strategy by
an entry point in the group ``randprune.strategies``: the strategy's name, and the class.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from randprune.cost import Budget, FloatArray
from randprune.errors import InvalidInputError, quoted
from randprune.registry import Registry
from randprune.space import IntArray, Space

__all__ = ["AdaptiveStrategy", "Strategy", "check_request", "check_told", "strategies"]


@runtime_checkable
class Strategy(Protocol):
    """Proposes configurations that meet a budget.

    A constructor only checks and stores its arguments, and `repr` rebuilds the object (measured
    arrays among the arguments are only counted there). Results depend on the arguments, on what
    was told, and on the generator's state alone: same seed, same configurations, in any process
    and on any machine.
    """

    def ask(self, space: Space, budget: Budget, n: int, rng: np.random.Generator) -> IntArray:
        """`n` configurations, int64 (n, G), every one within the budget.

        May be called any number of times, with any `n` of at least 1. Rows may repeat where the
        space is small or the strategy has a single answer: evaluate distinct rows once.

        Raises:
            InfeasibleBudgetError: fewer than `n` could be found; the message gives the range that
                is reachable.
        """
        ...


@runtime_checkable
class AdaptiveStrategy(Strategy, Protocol):
    """A strategy that learns from what its proposals turned out to be worth."""

    def tell(self, widths: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Take note that configurations `widths` (N, G) have the `values` (N,): higher = better.

        Called once per evaluated batch, after the `ask` that proposed it and before the next
        one, in the order of evaluation. A batch may be any part of what was asked for (failed
        candidates are left out), and may hold configurations that other strategies proposed.
        """
        ...


def check_request(n: int, rng: np.random.Generator) -> int:
    """`n` as an int, or an error where `ask` was not given a count and a generator."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise InvalidInputError(
            f"The 'n' parameter of ask must be an integer of at least 1. Got {quoted(n)} instead."
        )
    if not isinstance(rng, np.random.Generator):
        raise InvalidInputError(
            "The 'rng' parameter of ask must be a numpy Generator, such as "
            f"numpy.random.default_rng(0). Got {quoted(rng)} instead."
        )
    return int(n)


def check_groups(name: str, known: int, groups: int) -> None:
    """Raise an InvalidInputError where the strategy `name` has learned on another space."""
    if groups != known:
        raise InvalidInputError(
            f"This {name} has learned on a space of {known} groups. "
            f"Got one of {groups}: make a new object."
        )


def check_told(
    name: str, widths: npt.ArrayLike, values: npt.ArrayLike
) -> tuple[IntArray, FloatArray]:
    """What `tell` of the strategy `name` was given: configurations (N, G), int64, and values (N,).

    Raises:
        InvalidInputError: other shapes, or values that are not finite.
    """
    rows = np.asarray(widths)
    worth = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or worth.shape != rows.shape[:1]:
        raise InvalidInputError(
            "tell needs widths of shape (N, G) and values of shape (N,). "
            f"Got {rows.shape} and {worth.shape} instead."
        )
    if not np.isfinite(worth).all():
        raise InvalidInputError(
            f"The values told to {name} must be finite: leave failed candidates out."
        )
    return rows.astype(np.int64), worth


strategies: Registry[Strategy] = Registry("search strategy", "randprune.strategies")
