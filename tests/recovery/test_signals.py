"""Repair knows no images: signals, several inputs and structured outputs go the same way."""

from __future__ import annotations

import numpy as np
import torch
from repairable import build
from torch import Tensor, nn

from randprune.graph.trace import trace
from randprune.graph.trees import part_of
from randprune.recovery import recover
from randprune.space import Selection, Space
from randprune.surgery import cut
from randprune.tasks.outputs import relative_error


class Signal(nn.Module):
    """Two inputs: a signal, conv1d - bn - relu - conv1d, and one that is added; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(2, 8, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.b = nn.Conv1d(8, 8, 3, stride=2, padding=1)
        self.side = nn.Conv1d(2, 8, 1, stride=2)
        self.c = nn.Conv1d(8, 4, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, signal: Tensor, other: dict[str, Tensor]) -> dict[str, Tensor]:
        h = torch.relu(self.b(torch.relu(self.norm(self.a(signal)))) + self.side(other["x"]))
        return {"map": self.c(h), "row": self.head(h.mean(2))}


def test_signals_with_two_inputs_and_outputs_are_repaired() -> None:
    network = build(Signal)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 2, 24, generator=generator)
    # Channels that depend on each other: what is cut can be made up for.
    with torch.no_grad():
        network.a.weight[4:] = network.a.weight[:4] * 0.9
    inputs = (x, {"x": x.flip(2)})
    space = trace(network, tuple(part_of(inputs, slice(1))))
    assert len(space) == 2
    kept = [np.arange(0, group.width, 2) for group in space.groups]
    selection = Selection(tuple(kept), space.fingerprint)

    def error(small: nn.Module) -> float:
        with torch.no_grad():
            return float(relative_error(small(*inputs), network(*inputs)))

    errors = [
        error(
            recover(cut(network, space, selection), network, space, selection, chain, [(inputs,)])
        )
        for chain in ("none", "least_squares", "least_squares+sequential")
    ]
    assert errors[0] > 2 * errors[1] > 2 * errors[2]


class Decoder(nn.Module):
    """Down, up by a transposed convolution with a batch norm, up by one without a bias, a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3, padding=1)
        self.down = nn.Conv2d(12, 12, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(12, 12, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.mix = nn.Conv2d(24, 10, 1)
        self.last = nn.ConvTranspose2d(10, 2, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = torch.relu(self.a(x))
        up = torch.relu(self.norm(self.up(torch.relu(self.down(skip)))))
        return self.last(torch.relu(self.mix(torch.cat([skip, up], 1))))


def decoder() -> tuple[nn.Module, Tensor, Space]:
    network = build(Decoder)
    x = torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    return network, x, trace(network, x[:1])


def test_transposed_convolutions_are_repaired() -> None:
    network, x, space = decoder()
    held_out = torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    kept = [np.arange(0, group.width, 2) for group in space.groups]
    selection = Selection(tuple(kept), space.fingerprint)
    errors = []
    for chain in ("none", "least_squares", "least_squares+sequential"):
        small = recover(cut(network, space, selection), network, space, selection, chain, x)
        with torch.no_grad():
            errors.append(float(relative_error(small(held_out), network(held_out))))
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]


def test_what_a_transposed_convolution_reads_twice_costs_nothing_to_cut() -> None:
    network, x, space = decoder()
    with torch.no_grad():  # channels 5 to 9 of what `last` reads repeat 0 to 4
        network.mix.weight[5:] = network.mix.weight[:5]
        network.mix.bias[5:] = network.mix.bias[:5]
        expected = network(x)
    kept = [
        np.arange(5) if any(slot.tensor == "last.weight" for slot in group.slots)
        else np.arange(group.width)
        for group in space.groups
    ]  # fmt: skip
    selection = Selection(tuple(kept), space.fingerprint)
    assert selection.widths.tolist() != space.widths.tolist()
    for chain in ("least_squares", "sequential"):
        small = recover(cut(network, space, selection), network, space, selection, chain, x)
        assert small.last.weight.shape == (5, 2, 4, 4)
        with torch.no_grad():
            assert float(relative_error(small(x), expected)) < 1e-3
