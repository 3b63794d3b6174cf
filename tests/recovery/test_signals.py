"""Repair knows no images: signals, several inputs and structured outputs go the same way."""

from __future__ import annotations

import numpy as np
import torch
from repairable import build
from torch import Tensor, nn

from randprune.graph.trace import trace
from randprune.graph.trees import part_of
from randprune.recovery import recover
from randprune.space import Selection
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
