"""A pruning job that takes seconds, also as a process that kills itself on the way.

python pruning_jobs.py FOLDER PHASE DONE    SIGKILL once DONE steps of PHASE are complete
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from randprune.jobs import PruneResult, prune
from randprune.training import TrainRecipe, train
from randprune.zoo.data import Data, load_data

CANDIDATES = 6
SETTINGS: dict[str, Any] = {
    "search": {"precision": "float32", "batch_size": 100},
    "finalists": {"count": 2, "recovery": "least_squares+bn"},
    "budget": {"tolerance": 0.03},
    "output": {"latency_seconds": 0.0},
}
TRAINING = {"epochs": 2, "lr": 0.02, "batch_size": 64}


class Tiny(nn.Module):
    """Two convolutions with batch norm and a linear layer behind a flatten, for the digits."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 16, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.head = nn.Linear(16 * 4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.first(images)))
        hidden = torch.relu(self.norm2(self.second(hidden)))
        return self.head(nn.functional.avg_pool2d(hidden, 2).flatten(1))


def digits() -> Data:
    """A new `Data` each time, so that its counter of test openings starts at 0."""
    return load_data("digits", calibration=200, search=300)


@cache
def trained() -> Tiny:
    """A trained network, the same in every process."""
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Tiny()
    recipe = TrainRecipe(epochs=4, lr=0.2, batch_size=64, precision="float32")
    result: Tiny = train(network, digits().full_train, recipe).model  # type: ignore[assignment]
    return result.eval()


class Watch:
    """Notes what a job tells; kills the process, or raises, where it is told to."""

    def __init__(self, phase: str = "", done: int = 0, error: BaseException | None = None) -> None:
        self.stop_at = (phase, done)
        self.error = error
        self.phases: list[tuple[str, int, int]] = []
        self.steps: list[tuple[str, int, Mapping[str, float]]] = []
        self.finished: list[str] = []

    def start(self, phase: str, total: int, done: int, text: str) -> None:
        self.phases.append((phase, total, done))

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        self.steps.append((phase, done, dict(metrics)))
        if phase == self.stop_at[0] and done >= self.stop_at[1]:
            if self.error is not None:
                raise self.error
            os.kill(os.getpid(), signal.SIGKILL)

    def finish(self, phase: str) -> None:
        self.finished.append(phase)


def job(out: str | Path | None, progress: Watch | None = None, **changes: Any) -> PruneResult:
    """The job of these tests; `changes` are other parameters of `prune`."""
    parameters: dict[str, Any] = {
        "model": trained(),
        "data": digits(),
        "candidates": CANDIDATES,
        "finetune": TRAINING,
        "settings": SETTINGS,
        **changes,
    }
    return prune(out=out, progress=progress, **parameters)


if __name__ == "__main__":
    folder, phase, done = sys.argv[1:]
    job(folder, Watch(phase, int(done)))
    sys.exit("the job was not killed")
