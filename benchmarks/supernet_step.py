"""What a training step of shared weights costs beside a plain network of the same size.

    python benchmarks/supernet_step.py --networks randprune:resnet20 --steps 40

Both train at the same configurations, one step of each after the other through the package's own
loop (forward, backward, clipping, optimizer, batch-norm statistics), on the same random images.
The overhead is the median over steps of the ratio within a pair; above 0 the shared step is slower.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

import randprune as rp
from randprune.supernet import SharedStep, Supernet
from randprune.training import TrainRecipe
from randprune.training.loop import _Run
from randprune.training.steps import SupervisedStep
from randprune.widening import wide_budget
from randprune.zoo.models import build_model
from randprune.zoo.splits import TensorSplit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="randprune:resnet20")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--configurations", type=int, default=4)
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--factor", type=float, default=1.5)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{'network':32} {'plain ms':>9} {'shared ms':>9} {'overhead':>9}  (least, most)")
    for name in arguments.networks.split(","):
        print(f"{name:32} {measure(name, arguments)}", flush=True)


def measure(name: str, arguments: argparse.Namespace) -> str:
    """One line of figures."""
    torch.manual_seed(0)
    model = build_model(name)
    space = rp.trace(model, torch.zeros(1, 3, arguments.size, arguments.size))
    wide = rp.widen(model, space, arguments.factor)
    step = rp.widening_of(wide)
    budget = wide_budget(step, rp.Budget("macs", arguments.budget, 0.02))
    rows = rp.RandomSearch().ask(
        step.wide, budget, arguments.configurations, np.random.default_rng(0)
    )
    shared = Supernet(wide, step.wide)
    recipe = TrainRecipe(batch_size=arguments.batch, precision=arguments.precision, epochs=1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (arguments.batch, 3, arguments.size, arguments.size),
                           generator=generator, dtype=torch.uint8)  # fmt: skip
    labels = torch.randint(0, 10, (arguments.batch,), generator=generator)
    split = TensorSplit(images, labels, (0.5,) * 3, (0.25,) * 3, num_classes=10)
    batch, targets = next(iter(split.batches(arguments.batch)))
    batch = batch.contiguous(memory_format=torch.channels_last)
    ratios, plain_ms, shared_ms = [], [], []
    for row in rows:
        alone = _Run(shared.subnetwork(row), split, recipe, SupervisedStep(), None, None)
        together = _Run(shared, split, recipe, SharedStep(row[None]), None, None)
        for number in range(arguments.steps // len(rows) + 2):
            times = []
            for run in (alone, together) if number % 2 else (together, alone):
                run.step = 0
                start = time.perf_counter()
                run._one_step(batch, targets)
                times.append(time.perf_counter() - start)
            plain, ours = times if number % 2 else times[::-1]
            if number >= 2:  # the first ones warm up
                ratios.append(ours / plain)
                plain_ms.append(1000 * plain)
                shared_ms.append(1000 * ours)
    return (
        f"{statistics.median(plain_ms):9.1f} {statistics.median(shared_ms):9.1f} "
        f"{statistics.median(ratios) - 1:9.1%}  ({min(ratios) - 1:.1%}, {max(ratios) - 1:.1%})"
    )


if __name__ == "__main__":
    main()
