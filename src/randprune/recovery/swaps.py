"""Exchanges of kept and cut channels: what greedy elimination cannot take back.

Backward elimination (`randprune.recovery.elimination`) never puts a channel back. Afterwards one
kept and one cut channel of a group change places, always the pair that lowers the error of the
layers behind most, until none does (Meng et al., "OSSCAR: One-shot structured pruning in vision and
language models with combinatorial optimization", ICML 2024).

All pairs are exact and need no solve of their size. With P the inverse of a reader's damped
covariance, R the columns that are cut, K those that stay,

    M = (P_RR)^-1,   T = P_KR M,   U = W_R M,

the error is tr(W_R U'). Putting channel r back lowers it by tr(U_r M_rr^-1 U_r'), and turns the
refitted weights of channel k and its block of the inverse into

    W_k - W_R T_k' + U_r M_rr^-1 T_kr',    P_kk - T_k P_Rk + T_kr M_rr^-1 T_kr',

from which the increase by cutting k follows as in the elimination.

Known shortcomings: a local optimum for exchanges of one channel; groups are taken as independent;
groups that no moments are known for stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from randprune.recovery.elimination import Reader, readers_of
from randprune.recovery.inverses import Inverses
from randprune.space import IntArray, Selection, Space

_LEAST = 1e-3
"""Exchanges that lower the error by less than this share are left."""


def swap_channels(
    space: Space,
    selection: Selection,
    inverses: Inverses,
    tensors: Mapping[str, Tensor],
    *,
    swaps: int,
) -> Selection:
    """The selection after at most `swaps` exchanges in every group; widths stay.

    Args:
        space: the dense network's groups.
        selection: what is kept so far.
        inverses: of that network's moments.
        tensors: its parameters and buffers by name.
        swaps: most exchanges in one group; 0 leaves the selection as it is.
    """
    space.check_selection(selection)
    kept = [
        exchanged(chosen, readers_of(group, inverses, tensors), group.width, swaps)
        for group, chosen in zip(space.groups, selection, strict=True)
    ]
    return Selection(tuple(kept), space.fingerprint)


def exchanged(kept: IntArray, readers: Sequence[Reader], width: int, swaps: int) -> IntArray:
    """The channels of one group after the exchanges, sorted."""
    chosen = np.sort(kept)
    for _ in range(swaps):
        lost = np.setdiff1d(np.arange(width), chosen)
        if not len(lost) or not readers:
            break
        changes, error = torch.zeros(len(lost), len(chosen), dtype=torch.float64), 0.0
        for reader in readers:
            of_reader, own = pair_changes(reader, torch.from_numpy(lost), torch.from_numpy(chosen))
            changes += of_reader
            error += own
        back, out = divmod(int(changes.argmin()), len(chosen))
        if float(changes[back, out]) >= -_LEAST * error:
            break
        chosen = np.sort(np.append(np.delete(chosen, out), lost[back]))
    return chosen


def pair_changes(reader: Reader, lost: Tensor, kept: Tensor) -> tuple[Tensor, float]:
    """Change of a reader's error when a lost and a kept channel change places, and its error now.

    Args:
        reader: with the dense weights and the inverse of all columns.
        lost, kept: channels of the group; together all of them.

    Returns:
        The changes, float64 (lost, kept), negative = better.
    """
    block = reader.blocks.shape[1]
    cut = reader.blocks[lost].reshape(-1)
    stay = reader.blocks[kept].reshape(-1)
    across = reader.inverse[stay][:, cut]
    inner = torch.cholesky_inverse(torch.linalg.cholesky(reader.inverse[cut][:, cut]))
    weights = reader.matrix[:, cut]
    taken, moved = across @ inner, weights @ inner
    refitted = (reader.matrix[:, stay] - weights @ taken.T).T.reshape(len(kept), block, -1)
    places = reader.blocks[kept]
    parts = reader.inverse[places[:, :, None], places[:, None, :]]
    parts = parts - taken.reshape(len(kept), block, -1) @ across.reshape(len(kept), block, -1).mT
    changes = torch.empty(len(lost), len(kept), dtype=torch.float64)
    for number in range(len(lost)):
        columns = slice(number * block, (number + 1) * block)
        between = taken[:, columns].reshape(len(kept), block, block)
        solved = torch.linalg.solve(inner[columns, columns], between.mT)
        ahead = moved[:, columns]
        own_part = torch.linalg.solve(inner[columns, columns], ahead.T)
        now = refitted + solved.mT @ ahead.T
        increase = (now * torch.linalg.solve(parts + between @ solved, now)).sum(dim=(1, 2))
        changes[number] = increase - (ahead.T * own_part).sum()
    return changes, float((weights * moved).sum())
