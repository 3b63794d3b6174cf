"""A benchmark that takes seconds, with methods and a criterion that misbehave."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from randprune.bench import BenchRecipe, BenchRun, run_bench
from randprune.bench.methods import Task, methods
from randprune.criteria import ScoringContext, criteria
from randprune.errors import DataError
from randprune.space import Selection

IMAGES = {"spec": "digits", "calibration": 100, "search": 150}
ROWS = {
    "random_search": {"options": {"candidates": 3}},
    "one_random": {"method": "random_search", "options": {"candidates": 1}, "criteria": ["l1"]},
    "uniform": {"criteria": ["l1"]},
    "random_channels": {},
}


class Tiny(nn.Module):
    """Two convolutions with batch norm and a linear layer, for the digits."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 16, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.head = nn.Linear(16 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.first(images)))
        hidden = torch.relu(self.norm2(self.second(hidden)))
        return self.head(nn.functional.avg_pool2d(hidden, 2).flatten(1))


@methods.register("broken")
@dataclass(frozen=True)
class Broken:
    """Proposes too much."""

    uses_criterion: ClassVar[bool] = False
    words: ClassVar[str] = "Never what it should be."

    def propose(self, task: Task) -> Selection:
        return task.space.dense


@methods.register("looks_around")
@dataclass(frozen=True)
class LooksAround:
    """Uniform widths, after a look at the fit images and at its own network's weights."""

    uses_criterion: ClassVar[bool] = False
    words: ClassVar[str] = "Looks at 64 images."

    def propose(self, task: Task) -> Selection:
        next(task.fit.batches(64))
        with torch.no_grad():
            for parameter in task.model.parameters():
                parameter.zero_()
        return task.select(task.uniform_widths())


@methods.register("fatal_once")
@dataclass(frozen=True)
class FatalOnce:
    """Kills its process the first time: `marker` says whether it did."""

    marker: str
    always: bool = False
    uses_criterion: ClassVar[bool] = False
    words: ClassVar[str] = "Dies once."

    def propose(self, task: Task) -> Selection:
        if self.always or not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task.select(task.uniform_widths())


@methods.register("foresees")
@dataclass(frozen=True)
class Foresees:
    """Chooses by the prediction."""

    uses_criterion: ClassVar[bool] = True
    words: ClassVar[str] = "Needs a prediction."

    def propose(self, task: Task) -> Selection:
        widths = task.random_widths(2)
        return task.select(widths[task.proxy(widths).argmax()])


@criteria.register("unreadable")
@dataclass(frozen=True)
class Unreadable:
    """A criterion that fails."""

    name: ClassVar[str] = "unreadable"
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    def scores(self, context: ScoringContext) -> list[Tensor]:
        raise DataError("these weights say nothing")


class Watch:
    """Notes what a run tells; kills the process where it is told to."""

    def __init__(self, phase: str = "", done: int = 0) -> None:
        self.stop_at = (phase, done)
        self.phases: dict[str, tuple[int, int]] = {}
        self.steps: list[tuple[str, int]] = []

    def start(self, phase: str, total: int, done: int, text: str) -> None:
        self.phases[phase] = (total, done)

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        self.steps.append((phase, done))
        if phase == self.stop_at[0] and done >= self.stop_at[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    def finish(self, phase: str) -> None:
        pass


def recipe(**changes: Any) -> BenchRecipe:
    """The recipe of these tests; `changes` replace its keys."""
    document: dict[str, Any] = {
        "title": "Tiny",
        "plugins": ["tiny_bench"],
        "criteria": ["l1", "taylor"],
        "methods": ROWS,
        "model": {"spec": "tiny_bench:Tiny"},
        "data": IMAGES,
        "budget": {"tolerance": 0.03},
        "proposals": {"precision": "float32", "batch_size": 100},
        "design": {"draws": 2, "epochs": [1]},
        "pretrain": {"epochs": 2, "lr": 0.2, "batch_size": 64, "precision": "float32"},
        "finetune": {"lr": 0.02, "batch_size": 64, "precision": "float32"},
        "output": {"workers": 0},
        **changes,
    }
    return BenchRecipe.parse(document)


SCRATCH: dict[str, Any] = {
    "setting": "scratch",
    "title": "Tiny from scratch",
    "model": {"spec": "tiny_bench:Tiny"},
    "data": IMAGES,
    "budget": {"tolerance": 0.03},
    "proposals": {"precision": "float32", "batch_size": 100},
    "methods": {
        "random_search": {"options": {"candidates": 4}},
        "uniform": {},
        "one_random": {"method": "random_search", "options": {"candidates": 1}},
    },
    "design": {"draws": 2, "epochs": [1, 2]},
    "supernet": {"epochs": 3, "lr": 0.2, "batch_size": 64, "precision": "float32", "pool": 64},
    "training": {"lr": 0.2, "batch_size": 64, "precision": "float32"},
    "plugins": ["tiny_bench"],
    "output": {"workers": 0},
}


def scratch_recipe(**changes: Any) -> BenchRecipe:
    """The recipe of these tests from scratch; `changes` replace its keys, None removes them."""
    document = {key: v for key, v in {**SCRATCH, **changes}.items() if v is not None}
    return BenchRecipe.parse(document)


def run_scratch(folder: str | Path, watch: Watch | None = None, **changes: Any) -> BenchRun:
    """The benchmark of these tests from scratch, with one thread."""
    torch.set_num_threads(1)
    return run_bench(scratch_recipe(**changes), out=folder, progress=watch, device="cpu")


def run(folder: str | Path, watch: Watch | None = None, **changes: Any) -> BenchRun:
    """The benchmark of these tests, with one thread."""
    torch.set_num_threads(1)
    return run_bench(recipe(**changes), out=folder, progress=watch, device="cpu")
