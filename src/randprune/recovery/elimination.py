"""Greedy elimination of a group's channels: the error of the layers behind it, for every width.

For a layer y = W x behind a group, cutting the columns C of one channel and refitting all others by
least squares raises the error E|y - y'|^2 by exactly

    tr(W_C (inv(S)_CC)^-1 W_C'),

with S the covariance of x (Optimal Brain Surgeon, Hassibi & Stork, NIPS 1993, for whole blocks of
columns). Greedy backward elimination removes the channel with the least increase, updates W and
inv(S) by the same formula, and goes on until none is left: a rank for every channel, and the
error for every width, from one pass over the data.

Coupled groups add up the errors of all layers that read them, each relative to the variance of
that layer's output (after a batch norm that directly follows, per channel of which errors count as
much as its slope says).

Known shortcomings: greedy; errors of different groups are taken as independent; a group all of
whose readers are too wide for moments, or no convolution or linear layer, is ranked by the norms of
its filters instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from randprune.cost import FloatArray
from randprune.recovery.inverses import Inverses
from randprune.space import ChannelGroup, IntArray, Space

_AT_ONCE = 128
"""Wide groups lose 1/128 of their channels in one step (the joint error stays exact)."""


@dataclass(frozen=True, slots=True, eq=False)
class Elimination:
    """The greedy elimination of one group.

    Attributes:
        order: channels, first removed first, int64 (width,).
        errors: entry k is the error with the best k channels, float64 (width + 1,): the sum over
            the layers behind of error / output variance. Never rises with k.
        exact: False where the filters' norms had to stand in.
    """

    order: IntArray
    errors: FloatArray
    exact: bool

    def kept(self, width: int) -> IntArray:
        """The `width` channels that stay longest, sorted."""
        return np.sort(self.order[len(self.order) - width :])

    @property
    def scores(self) -> Tensor:
        """The error at which each channel goes, strictly increasing along `order`, float64."""
        reached = self.errors[::-1][1:].copy()
        step = max(float(reached[-1]), 1.0) * 1e-12
        reached += step * np.arange(1, len(reached) + 1)
        scores = torch.empty(len(reached), dtype=torch.float64)
        scores[torch.from_numpy(self.order)] = torch.from_numpy(np.maximum.accumulate(reached))
        return scores


def eliminate(space: Space, inverses: Inverses, tensors: Mapping[str, Tensor]) -> list[Elimination]:
    """The elimination of every group.

    Args:
        space: the dense network's groups.
        inverses: of that network's moments.
        tensors: its parameters and buffers by name.
    """
    return [_eliminate_group(group, inverses, tensors) for group in space.groups]


@dataclass(slots=True, eq=False)
class Reader:
    """One layer (or one group of a grouped one) behind the group that is being eliminated.

    `inverse` (columns, columns) of the damped covariance of what is left; `matrix` (rows, columns)
    the weights refitted so far; `blocks` (channels left, block) the columns of each channel.
    Everything is divided such that errors are relative.
    """

    inverse: Tensor
    matrix: Tensor
    blocks: Tensor

    def increases(self) -> Tensor:
        """Error increase of removing each channel alone, (channels left,)."""
        parts = self.inverse[self.blocks[:, :, None], self.blocks[:, None, :]]
        weights = self.matrix[:, self.blocks].permute(1, 2, 0)
        solved: Tensor = torch.linalg.solve(parts, weights)
        return (weights * solved).sum(dim=(1, 2))

    def remove(self, gone: Tensor) -> float:
        """Remove the channels at the given places, in place; the joint error increase."""
        columns = self.blocks[gone].reshape(-1)
        between = self.inverse[:, columns]
        weights = self.matrix[:, columns]
        update = torch.linalg.solve(between[columns], weights.T)
        increase = float((weights.T * update).sum())
        self.matrix -= (between @ update).T
        self.inverse -= between @ torch.linalg.solve(between[columns], between.T)
        stay = torch.ones(len(self.blocks), dtype=torch.bool)
        stay[gone] = False
        self.blocks = self.blocks[stay]
        return increase

    def compact(self, others: Tensor) -> Tensor:
        """Drop the columns of removed channels; the new places of `others`, columns that stay."""
        columns = torch.cat([self.blocks.reshape(-1), others]).sort().values
        place = torch.full((len(self.inverse),), -1, dtype=torch.int64)
        place[columns] = torch.arange(len(columns))
        self.inverse = self.inverse[columns][:, columns]
        self.matrix = self.matrix[:, columns]
        self.blocks = place[self.blocks]
        return place[others]


def readers_of(
    group: ChannelGroup, inverses: Inverses, tensors: Mapping[str, Tensor]
) -> list[Reader]:
    """All layers behind a group whose moments are known; empty where there is none.

    Their inverses are those that all share: copy them before `Reader.remove`.
    """
    return [
        reader
        for slot in group.with_role("in")
        if (layer := inverses.moments.layers.get(slot.tensor)) is not None
        and slot.dim == layer.input_dim
        for reader in _readers(slot.tensor, slot.index, inverses, tensors)
    ]


def _eliminate_group(
    group: ChannelGroup, inverses: Inverses, tensors: Mapping[str, Tensor]
) -> Elimination:
    readers = readers_of(group, inverses, tensors)
    if not readers:
        return _by_norm(group, tensors)
    for reader in readers:
        reader.inverse = reader.inverse.clone()
    others = [_other_columns(reader) for reader in readers]
    left = torch.arange(group.width)
    order: list[int] = []
    errors = [0.0]
    compacted = group.width
    at_once = max(1, group.width // _AT_ONCE)
    while len(left):
        increases = torch.stack([reader.increases() for reader in readers]).sum(dim=0)
        gone = increases.argsort(stable=True)[:at_once]
        joint = max(sum(reader.remove(gone) for reader in readers), 0.0)
        share = increases[gone].clamp_min(1e-300).cumsum(0)
        errors += [errors[-1] + joint * float(s / share[-1]) for s in share]
        order += left[gone].tolist()
        stay = torch.ones(len(left), dtype=torch.bool)
        stay[gone] = False
        left = left[stay]
        if len(left) < 0.7 * compacted:
            compacted = len(left)
            others = [r.compact(o) for r, o in zip(readers, others, strict=True)]
    return Elimination(np.array(order), np.array(errors[::-1]), exact=True)


def _readers(
    name: str, index: IntArray, inverses: Inverses, tensors: Mapping[str, Tensor]
) -> list[Reader]:
    moments = inverses.moments
    layer = moments.layers[name]
    site = moments.site(layer)
    weight = layer.upright(tensors[name].detach().double().cpu())
    if layer.norm is not None:
        slope, _ = layer.norm.affine(tensors)
        weight = weight * slope.cpu().reshape(-1, *[1] * (weight.ndim - 1))
    matrix = moments.matrix(layer, weight)
    covariance = site.covariance.to(torch.float64, copy=True).cpu()
    variance = float(((matrix @ covariance) * matrix).sum())
    if variance <= 0.0:
        return []
    width = len(index)
    blocks = moments.columns(layer, index.reshape(-1)).reshape(width, -1)
    found = []
    for part, inverse in zip(matrix, inverses.of(layer), strict=True):
        found.append(Reader(inverse, part / variance**0.5, blocks))
    return found


def _other_columns(reader: Reader) -> Tensor:
    own = torch.zeros(len(reader.inverse), dtype=torch.bool)
    own[reader.blocks.reshape(-1)] = True
    return torch.nonzero(~own)[:, 0]


def _by_norm(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Elimination:
    """Squared filter norms as errors, relative to their sum."""
    squares = torch.zeros(group.width, dtype=torch.float64)
    for slot in group.with_role("out"):
        weight = tensors[slot.tensor].detach().double().cpu().movedim(slot.dim, 0)
        rows = weight[torch.from_numpy(slot.index.reshape(-1))].flatten(1)
        squares += rows.square().sum(dim=1).reshape(group.width, -1).sum(dim=1)
    total = float(squares.sum()) or 1.0
    order = squares.argsort(stable=True)
    errors = np.concatenate([[0.0], (squares[order] / total).cumsum(0).numpy()])
    return Elimination(order.numpy(), errors[::-1].copy(), exact=False)
