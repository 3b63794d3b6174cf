"""Rows of windows times the weight matrix are the layer's outputs at the sampled places."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from randprune.graph.layers import Geometry
from randprune.recovery.patches import (
    channel_rows,
    input_rows,
    output_rows,
    sample_positions,
)
from randprune.recovery.replay import Layer


@pytest.mark.parametrize("places", [5, 10_000])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups"),
    [
        ((3, 3), (1, 1), (1, 1), (1, 1), 1),
        ((1, 1), (1, 1), (0, 0), (1, 1), 1),
        ((1, 1), (2, 2), (0, 0), (1, 1), 2),
        ((3, 2), (2, 1), (1, 0), (1, 2), 3),
        ((5, 3), (3, 2), (2, 1), (2, 1), 6),
    ],
)
def test_windows_times_weights_are_outputs(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    places: int,
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, 13, 11, generator=generator)
    weight = torch.randn(12, 6 // groups, *kernel, generator=generator)
    expected = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    margins = (padding[1], padding[1], padding[0], padding[0])
    layer = Layer("w", "", None, "w", Geometry(groups, kernel, stride, margins, dilation))
    assert layer.geometry.output_size(x.shape[2:]) == tuple(expected.shape[2:])
    positions = sample_positions(layer, x, places, generator)
    assert len(positions) == min(places, expected.shape[2] * expected.shape[3])
    assert torch.equal(positions, positions.unique())
    for source in (x, x.contiguous(memory_format=torch.channels_last)):
        rows = input_rows(layer, source, positions)
        matrix = weight.reshape(groups, 12 // groups, -1)
        got = torch.einsum("gnc,goc->ngo", rows, matrix).reshape(rows.shape[1], -1)
        torch.testing.assert_close(got, output_rows(layer, expected, positions))


@pytest.mark.parametrize("axes", [1, 3])
def test_windows_of_one_and_three_axes_are_outputs_too(axes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, *(9, 7, 8)[:axes], generator=generator)
    weight = torch.randn(6, 2, *(3, 2, 3)[:axes], generator=generator)
    stride, dilation = (2, 1, 1)[:axes], (1, 2, 1)[:axes]
    convolve = {1: F.conv1d, 3: F.conv3d}[axes]
    expected = convolve(F.pad(x, (1, 1) * axes), weight, None, stride, 0, dilation, 2)
    lie = Geometry(2, tuple(weight.shape[2:]), stride, (1, 1) * axes, dilation)
    layer = Layer("w", "", None, "w", lie)
    positions = sample_positions(layer, x, 5, generator)
    rows = input_rows(layer, x, positions)
    got = torch.einsum("gnc,goc->ngo", rows, weight.reshape(2, 3, -1)).reshape(len(rows[0]), -1)
    torch.testing.assert_close(got, output_rows(layer, expected, positions))


@pytest.mark.parametrize("shape", [(7, 9), (7, 5, 9), (7, 3, 4, 9)])
def test_linear_layers_read_rows(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(4, 9, generator=generator)
    layer = Layer("w", "", None, "w", Geometry())
    positions = sample_positions(layer, x, 3, generator)
    rows = input_rows(layer, x, positions)
    assert rows.shape == (1, 7 * len(positions), 9)
    torch.testing.assert_close(
        rows[0] @ weight.T, output_rows(layer, F.linear(x, weight), positions)
    )


def test_channel_rows_are_pixels_of_the_input() -> None:
    x = torch.arange(2 * 4 * 3 * 3.0).reshape(2, 4, 3, 3)
    layer = Layer("w", "", None, "w", Geometry(groups=2, kernel=(3, 3)))
    rows = channel_rows(layer, x, 100, torch.Generator())
    assert rows.shape == (2, 18, 2)
    expected = x.permute(0, 2, 3, 1).reshape(18, 2, 2).transpose(0, 1)
    assert torch.equal(rows, expected)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "output_padding", "dilation"),
    [(2, 2, 0, 0, 1), (3, 2, 1, 1, 1), (4, 2, 1, 0, 1), (3, 1, 2, 0, 2), (3, 3, 1, 2, 2)],
)
def test_rows_of_a_transposed_convolution_times_weights_are_its_outputs(
    axes: int, kernel: int, stride: int, padding: int, output_padding: int, dilation: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, *(6, 5, 4)[:axes], generator=generator)
    weight = torch.randn(4, 5, *(kernel,) * axes, generator=generator)
    run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    expected = run(
        x, weight, None, stride, padding, output_padding, groups=1, dilation=dilation
    )  # fmt: skip
    each = [(n,) * axes for n in (kernel, stride, dilation, output_padding)]
    lie = Geometry(1, each[0], each[1], (padding,) * 2 * axes, each[2], True, each[3])
    layer = Layer("w", "", None, "w", lie)
    assert lie.output_size(x.shape[2:]) == tuple(expected.shape[2:])
    positions = sample_positions(layer, x, 40, generator)
    rows = input_rows(layer, x, positions)
    got = rows[0] @ layer.upright(weight).flatten(1).T
    torch.testing.assert_close(got, output_rows(layer, expected, positions))
