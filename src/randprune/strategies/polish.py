"""Improve one feasible configuration under an additive proxy, changing one or two groups at a time.

Method. Moves of a group are 1, 2, 4, ... allowed widths up or down, and to any of its widths where
all groups together have few. Each round takes the move, or
the pair of moves of two groups, that lowers the proxy most while the cost stays within the
tolerance, until none does. Pair costs are exact for a `QuadraticCost`; for others the two changes
are added up, and the best few pairs are checked with the cost itself.

Known shortcomings. A local optimum: exchanges of three groups are not tried.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from randprune.cost import FloatArray, QuadraticCost
from randprune.space import IntArray
from randprune.strategies.shift import Target

_ROUNDS = 200
_CHECKED = 32
_FEW = 256


def polish(
    widths: IntArray, tables: Sequence[FloatArray], levels: Sequence[FloatArray], target: Target
) -> IntArray:
    """`widths` (G,) after the improving moves: feasible, and its proxy no greater, int64 (G,).

    `levels[g]` are the allowed widths of group g, ascending.
    """
    current = widths.copy()
    for _ in range(_ROUNDS):
        group, width, gain = _moves(current, tables, levels)
        if not len(group):
            break
        improved = _best_move(current, group, width, gain, target)
        if improved is None:
            break
        current = improved
    return current


def _moves(
    current: IntArray, tables: Sequence[FloatArray], levels: Sequence[FloatArray]
) -> tuple[IntArray, IntArray, FloatArray]:
    """All single-group moves: their groups, new widths and changes of the proxy, each (M,)."""
    groups, widths, gains = [], [], []
    few = sum(len(allowed) for allowed in levels) <= _FEW
    for g, (table, allowed) in enumerate(zip(tables, levels, strict=True)):
        place = int(np.searchsorted(allowed, current[g]))
        size = len(allowed)
        reach = np.arange(1, size) if few else 2 ** np.arange(size.bit_length())
        places = np.concatenate([place - reach, place + reach])
        places = places[(places >= 0) & (places < size)]
        new = allowed[places].astype(np.int64)
        groups.append(np.full(len(new), g, dtype=np.int64))
        widths.append(new)
        gains.append(table[new] - table[current[g]])
    return np.concatenate(groups), np.concatenate(widths), np.concatenate(gains)


def _best_move(
    current: IntArray, group: IntArray, width: IntArray, gain: FloatArray, target: Target
) -> IntArray | None:
    """The configuration after the feasible move or pair of moves that lowers the proxy most."""
    moved = np.repeat(current[None], len(group), axis=0)
    moved[np.arange(len(group)), group] = width
    now = float(target.ratios(current[None].astype(np.float64))[0])
    change = target.ratios(moved.astype(np.float64)) - now
    # Row i, column j: move i and move j together; the diagonal stands for move i alone.
    gains = gain[:, None] + gain
    changes = change[:, None] + change
    if isinstance(target.cost, QuadraticCost):
        step = (width - current[group]).astype(np.float64)
        coupling = target.cost.quadratic[np.ix_(group, group)] * (step[:, None] * step)
        changes += 2.0 * coupling / target.dense
    np.fill_diagonal(gains, gain)
    np.fill_diagonal(changes, change)
    same = group[:, None] == group
    np.fill_diagonal(same, False)
    # A hair of slack: what is taken is checked with the cost itself below.
    feasible = np.abs(now + changes - target.ratio) <= target.tolerance * (1.0 + 1e-9)
    gains[~feasible | same] = np.inf
    flat = gains.reshape(-1)
    count = min(_CHECKED, flat.size)
    ranked = np.argpartition(flat, count - 1)[:count]
    ranked = ranked[np.argsort(flat[ranked], kind="stable")]
    floor = -1e-12 * max(1.0, float(np.abs(gain).max()))
    for place in ranked[flat[ranked] < floor].tolist():
        first, second = divmod(place, len(group))
        candidate = current.copy()
        candidate[group[[first, second]]] = width[[first, second]]
        if target.fits(target.ratios(candidate[None].astype(np.float64)))[0]:
            return candidate
    return None
