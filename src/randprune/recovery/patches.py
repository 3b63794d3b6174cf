"""What a layer reads, as rows of a matrix: sampled windows of a convolution, rows of a linear.

Column order. Column ``i * taps + t`` of group q holds input channel i of that group under kernel
position t, the order of ``weight.flatten(1)``; so ``rows @ weight_matrix.T`` is the layer's output.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from randprune.graph.layers import Geometry
from randprune.recovery.replay import Layer


def sample_positions(
    layer: Layer, source: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Sorted random places (P,), int64, on the layer's output map; all of them where few.

    `source` is what the layer reads: (B, C, D...) for convolutions, (B, ..., C) for linear layers.
    The places are the same for all images of a batch.
    """
    windows = layer.geometry
    sizes = source.shape[1:-1] if windows.linear else windows.output_size(source.shape[2:])
    places = math.prod(sizes)
    if places <= count:
        return torch.arange(places)
    return torch.randperm(places, generator=generator)[:count].sort().values


def output_rows(layer: Layer, output: Tensor, positions: Tensor) -> Tensor:
    """Outputs at the places: (B * P, C), float32. Any tensor of the output's shape will do."""
    if layer.geometry.linear:
        rows = output.reshape(output.shape[0], -1, output.shape[-1])
        return rows[:, positions.to(rows.device)].reshape(-1, output.shape[-1]).float()
    flat = output.movedim(1, -1).reshape(output.shape[0], -1, output.shape[1])
    return flat[:, positions.to(flat.device)].reshape(-1, output.shape[1]).float()


def input_rows(layer: Layer, source: Tensor, positions: Tensor) -> Tensor:
    """What the layer reads at the output places: (groups, B * P, columns), float32."""
    positions = positions.to(source.device)
    if layer.geometry.linear:
        rows = source.reshape(source.shape[0], -1, source.shape[-1])[:, positions]
        return rows.reshape(1, -1, source.shape[-1]).float()
    batch, channels = source.shape[:2]
    lie = layer.geometry
    # Where each window begins, one index an axis.
    places = torch.unravel_index(positions, lie.output_size(source.shape[2:]))
    if lie.transposed:
        return _spread_rows(lie, source, places)
    corners = [place * stride for place, stride in zip(places, lie.stride, strict=True)]
    padded = F.pad(source, lie.padding) if any(lie.padding) else source
    padded = padded.movedim(1, -1)
    windows: list[Tensor] = []
    for taps in itertools.product(*map(range, lie.kernel)):
        offsets = [tap * step for tap, step in zip(taps, lie.dilation, strict=True)]
        index = [corner + offset for corner, offset in zip(corners, offsets, strict=True)]
        windows.append(padded[(slice(None), *index)])  # type: ignore[index]
    rows = torch.stack(windows, dim=-1).reshape(batch * len(positions), layer.groups, -1).float()
    assert rows.shape[-1] == channels // layer.groups * layer.taps
    return rows.transpose(0, 1)


def _spread_rows(lie: Geometry, source: Tensor, places: tuple[Tensor, ...]) -> Tensor:
    """What a transposed convolution adds up at output places: (1, B * P, columns), float32.

    Output o reads input (o + padding - tap * dilation) / stride where that is a position, else 0.
    """
    channels_last, sizes = source.movedim(1, -1), source.shape[2:]
    windows: list[Tensor] = []
    for taps in itertools.product(*map(range, lie.kernel)):
        index, read = [], torch.ones_like(places[0], dtype=torch.bool)
        axes = zip(places, taps, lie.padding[-2::-2], lie.dilation, lie.stride, sizes, strict=True)
        for place, tap, before, dilation, stride, size in axes:
            at = place + before - tap * dilation
            index.append(torch.div(at, stride, rounding_mode="floor").clamp(0, size - 1))
            read = read & (at % stride == 0) & (at >= 0) & (at < size * stride)
        window = channels_last[(slice(None), *index)]  # type: ignore[index]
        windows.append(window * read[:, None].to(window.dtype))
    return torch.stack(windows, dim=-1).reshape(1, len(source) * len(places[0]), -1).float()


def channel_rows(layer: Layer, source: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Input channels alone at random places of the input: (groups, B * P, channels), float32."""
    batch, channels = source.shape[:2]
    flat = source.movedim(1, -1).reshape(batch, -1, channels)
    places = torch.randperm(flat.shape[1], generator=generator)[:count].sort().values
    rows = flat[:, places.to(flat.device)].reshape(-1, layer.groups, channels // layer.groups)
    return rows.float().transpose(0, 1)
