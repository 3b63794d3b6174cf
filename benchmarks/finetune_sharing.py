"""How the fine-tuning of several small networks shares the machine best.

    python benchmarks/finetune_sharing.py --networks 4 --steps 60 --json sharing.json

Trains the same networks (ResNet-20 cut to half of its MACs at random widths, batches of 128) in
several ways and gives trained images per second of wall time, all networks together:

- "1 process x all threads": one network after the other, torch with all cores;
- "N processes x 1 thread": one process a core, each with networks of its own, as `randprune bench`;
- "1 process x 1 thread": what a single core does, for the ratio;
- "vectorised": all networks of one configuration at once, `torch.func.vmap` over stacked weights.
  It needs equal widths, so it is measured on as many copies of one network; float32.

Weights and images are random: speed does not depend on them. Starting a process (importing torch,
reading the images) is left out; its seconds are given beside. Ways take turns, round by round.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import randprune as rp
from randprune.strategies import RandomSearch
from randprune.training import TrainRecipe, train
from randprune.zoo.models import build_model
from randprune.zoo.splits import TensorSplit

BATCH = 128
CLASSES = 10


def main() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="randprune:resnet20")
    parser.add_argument("--networks", type=int, default=4, help="a multiple of --cores")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=cores)
    parser.add_argument("--json", default="", help="file for the figures")
    arguments = parser.parse_args()
    count, steps, cores = arguments.networks, arguments.steps, arguments.cores
    started = time.perf_counter()
    workers = [Worker(arguments.model) for _ in range(cores)]
    start_seconds = time.perf_counter() - started
    ways: dict[str, Callable[[], float]] = {
        "1 process x 1 thread": lambda: alone(arguments.model, count, steps, 1),
        f"1 process x {cores} threads": lambda: alone(arguments.model, count, steps, cores),
        f"{cores} processes x 1 thread": lambda: together(workers, count // cores, steps),
        f"vectorised x {cores} threads": lambda: vectorised(arguments.model, count, steps, cores),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way, run in ways.items():
            seconds[way].append(run())
    images = count * steps * BATCH
    rows = [
        {"way": way, "seconds": found, "images_per_second": images / statistics.median(found)}
        for way, found in seconds.items()
    ]
    base = rows[0]["images_per_second"]
    print(f"{count} networks, {steps} steps of {BATCH} images, {cores} cores")
    for row in rows:
        speed = row["images_per_second"]
        print(f"{row['way']:24} {speed:8.0f} images/s  {speed / base:5.2f} x one core")
    print(f"starting {cores} processes: {start_seconds:.1f} s")
    for worker in workers:
        worker.stop()
    if arguments.json:
        report = {"torch": torch.__version__, "rows": rows, "start_seconds": start_seconds}
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)


def networks(model: str, count: int) -> list[nn.Module]:
    """Networks at random widths with half of the MACs."""
    torch.manual_seed(0)
    dense = build_model(model).eval()
    space = rp.trace(dense, torch.zeros(1, 3, 32, 32))
    scores = rp.score(dense, space, "l1")
    budget = rp.Budget("macs", 0.5)
    widths = RandomSearch().ask(space, budget, count, np.random.default_rng(0))
    return [rp.cut(dense, space, rp.select(space, scores, row)) for row in widths]


def split(steps: int) -> TensorSplit:
    """Random images for so many steps."""
    generator = torch.Generator().manual_seed(0)
    shape = (steps * BATCH, 3, 32, 32)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, shape[:1], generator=generator)
    return TensorSplit(images, labels, (0.5,) * 3, (0.25,) * 3, CLASSES)


def run_training(made: Sequence[nn.Module], steps: int) -> float:
    """Seconds of training one network after the other with the package's loop."""
    images, recipe = split(steps), TrainRecipe(epochs=1, batch_size=BATCH)
    train(made[0], split(2), recipe, device="cpu")  # warm-up
    start = time.perf_counter()
    for network in made:
        train(network, images, recipe, device="cpu")
    return time.perf_counter() - start


def alone(model: str, count: int, steps: int, threads: int) -> float:
    """All networks in this process."""
    torch.set_num_threads(threads)
    return run_training(networks(model, count), steps)


class Worker:
    """A process with one thread that trains when asked."""

    def __init__(self, model: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, model), daemon=True)
        self.process.start()
        assert self.pipe.recv() == "ready"

    def stop(self) -> None:
        self.pipe.send(None)
        self.process.join()


def serve(pipe: Connection, model: str) -> None:
    """Train so many networks for so many steps, as often as asked."""
    torch.set_num_threads(1)
    networks(model, 1)
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        count, steps = asked
        pipe.send(run_training(networks(model, count), steps))


def together(workers: Sequence[Worker], each: int, steps: int) -> float:
    """All networks, side by side; the slowest process counts."""
    for worker in workers:
        worker.pipe.send((each, steps))
    return max(worker.pipe.recv() for worker in workers)


def vectorised(model: str, count: int, steps: int, threads: int) -> float:
    """Copies of one network trained at once, weights stacked, by `torch.func.vmap`."""
    torch.set_num_threads(threads)
    network = networks(model, 1)[0].train()
    # Running statistics are updated in place, which vmap cannot do: batch statistics alone.
    torch.func.replace_all_batch_norm_modules_(network)
    parameters, buffers = torch.func.stack_module_state([network] * count)
    parameters = {name: t.detach().requires_grad_() for name, t in parameters.items()}
    optimizer = torch.optim.SGD(parameters.values(), lr=0.01, momentum=0.9, nesterov=True)

    def loss(own: dict[str, Tensor], held: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits: Any = torch.func.functional_call(network, (own, held), (x,))
        return nn.functional.cross_entropy(logits, y)

    batched = torch.func.vmap(loss, in_dims=(0, 0, None, None))

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        batched(parameters, buffers, x, y).sum().backward()
        optimizer.step()

    order = torch.Generator().manual_seed(0)
    batches = list(split(steps).batches(BATCH, shuffle=order, augment=True, drop_last=True))
    step(*batches[0])  # warm-up
    start = time.perf_counter()
    for images, labels in batches:
        step(images, labels)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
