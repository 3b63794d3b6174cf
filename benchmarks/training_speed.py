"""Training throughput on this machine: precision, memory order and batch norm, in turn.

    python benchmarks/training_speed.py --networks resnet20,resnet56 --steps 12

For each network, dense and cut to half of its multiply-adds at random widths, one training step of
every mode after the other, round by round; images a second at the median, and each mode's ratio to
"float32, channels first" within rounds.
Weights and images are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

import randprune as rp
from randprune.strategies import RandomSearch
from randprune.training import TrainRecipe, fast_norm
from randprune.training.loop import _Run
from randprune.training.steps import SupervisedStep
from randprune.training.teacher import Teacher
from randprune.zoo.models import build_model
from randprune.zoo.splits import TensorSplit

MODES = {
    "float32, channels first": {"precision": "float32", "channels_last": False},
    "float32, channels last": {"precision": "float32", "channels_last": True},
    "bfloat16, channels first": {"precision": "bfloat16", "channels_last": False},
    "bfloat16, channels last": {"precision": "bfloat16", "channels_last": True},
    "default": {"precision": "bfloat16", "channels_last": True},
    "default, distilling": {"precision": "bfloat16", "channels_last": True, "distill_weight": 0.5},
}
BASELINE = "float32, channels first"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="resnet20,resnet56")
    parser.add_argument("--batch-sizes", default="128")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--modes", default="", help="comma-separated parts of mode names")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU instead of wall seconds")
    parser.add_argument("--json", default="", help="file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    wanted = [m for m in MODES if any(part in m for part in arguments.modes.split(","))]
    rows = []
    for name in arguments.networks.split(","):
        for kind, model in networks(name):
            for size in map(int, arguments.batch_sizes.split(",")):
                found = measure(model, dense=build(name), modes=wanted, batch_size=size,
                                steps=arguments.steps, clock=clock)  # fmt: skip
                rows += [{"network": name, "kind": kind, "batch": size, **row} for row in found]
    print(f"{'network':10} {'kind':22} {'batch':>5}  {'mode':26} {'images/s':>9} {'ratio':>6}")
    for row in rows:
        print(
            f"{row['network']:10} {row['kind']:22} {row['batch']:5}  {row['mode']:26} "
            f"{row['images_per_second']:9.0f} {row['ratio']:6.2f}"
        )
    report = {"threads": arguments.threads, "torch": torch.__version__, "rows": rows}
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_model(f"randprune:{name}")


def networks(name: str) -> Iterator[tuple[str, nn.Module]]:
    model = build(name)
    yield "dense", model
    space = rp.trace(model, torch.randn(2, 3, 32, 32))
    scores = rp.score(model, space, "l1")
    for kind, round_to in (("half, any width", 1), ("half, multiples of 8", 8)):
        rng = np.random.default_rng(0)
        search = RandomSearch(min_keep=0.25, round_to=round_to)
        budget = rp.Budget("macs", 0.5, tolerance=0.02)
        widths = search.ask(space, budget, 1, rng)[0]
        yield kind, rp.cut(model, space, rp.select(space, scores, widths))


def measure(
    model: nn.Module,
    *,
    dense: nn.Module,
    modes: list[str],
    batch_size: int,
    steps: int,
    clock: Callable[[], float],
) -> list[dict[str, object]]:
    """Seconds of one step of each mode, in turn."""
    pixels = torch.randint(0, 256, (batch_size * 2, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 10, (batch_size * 2,))
    split = TensorSplit(pixels, labels, (0.5,) * 3, (0.25,) * 3, num_classes=10)
    runs = {}
    for mode in modes:
        recipe = TrainRecipe(epochs=1, batch_size=batch_size, **MODES[mode])
        teacher = Teacher(dense, remember_bytes=0)
        step = SupervisedStep(teacher=teacher, distill_weight=recipe.distill_weight)
        runs[mode] = _Run(model, split, recipe, step, None, "cpu")
        if not mode.startswith("default"):
            fast_norm.remove(runs[mode].network)
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    for turn in range(steps + 1):
        for mode, run in runs.items():
            run.step = 0
            batches = run._batches()
            start = clock()
            run._one_step(*next(batches))
            if turn:
                seconds[mode].append(clock() - start)
    base = seconds.get(BASELINE, seconds[modes[0]])
    return [
        {
            "mode": mode,
            "images_per_second": batch_size / statistics.median(found),
            "ratio": statistics.median(b / s for b, s in zip(base, found, strict=True)),
        }
        for mode, found in seconds.items()
    ]


if __name__ == "__main__":
    main()
