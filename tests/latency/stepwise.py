"""A runtime that computes nothing: times follow from widths alone, in steps, like hardware's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from randprune.errors import UnsupportedModelError
from randprune.latency.operators import Call


def layer_ms(inputs: int, outputs: int) -> float:
    """Multiples of 16 are cheap; others are padded, and pay for it."""
    up = -(-inputs // 16) * -(-outputs // 16)
    return 0.1 * up * (1.0 if inputs % 8 == outputs % 8 == 0 else 1.5)


@dataclass
class Stepwise:
    """Counts what it is asked; `drift` multiplies the network's times from call to call."""

    name: ClassVar[str] = "stepwise"
    absorbs: ClassVar[frozenset[str]] = frozenset({"batch_norm", "relu"})
    profiles: ClassVar[bool] = True

    fails: str = ""
    drift: float = 1.0
    asked: list[Call] = field(default_factory=list)
    prepared: int = 0
    now: float = 1.0

    def version(self) -> str:
        return "1"

    def prepare(self, network: nn.Module, inputs: tuple[Any, ...], threads: int) -> StepwiseRunner:
        if self.fails:
            raise UnsupportedModelError(self.fails)
        self.prepared += 1
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        shapes = [(m.weight.shape[1], m.weight.shape[0]) for m in layers]
        return StepwiseRunner(self, sum(layer_ms(i, o) for i, o in shapes))

    def operators_ms(self, calls: Sequence[Call], threads: int) -> Any:
        self.asked += calls
        return np.array([layer_ms(call.inputs, call.outputs) for call in calls])


@dataclass
class StepwiseRunner:
    """Takes what its network's layers take."""

    runtime: Stepwise
    milliseconds: float

    def clock(self, loops: int) -> float:
        self.runtime.now *= self.runtime.drift
        return self.milliseconds * self.runtime.now

    def fastest(self, runs: int) -> float:
        return self.clock(runs)


def small_network() -> nn.Module:
    """Two groups of 64 and 96 channels."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 96, 3, padding=1),
        nn.BatchNorm2d(96),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, 10),
    ).eval()
