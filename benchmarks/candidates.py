"""Seconds per candidate: drawn and costed, built, repaired; beside Torch-Pruning on the same job.

    pip install --no-deps torch-pruning==1.6.1      # optional: for the rows of the peer
    python benchmarks/candidates.py [--models randprune:resnet56,torchvision:resnet50] [--rounds 7]
    OMP_NUM_THREADS=1 python benchmarks/candidates.py --processor     # on a busy machine

Every round runs each case once, in turn; medians over the rounds with their range, after one
uncounted round, and ratios within rounds:

    draw and cost          a configuration within the budget's reach and its exact MACs
    draw, cost and build   ... and the pruned network (select, cut)
    + repair               ... and least-squares weights for all layers that lost inputs
    peer: the same job     a ratio for every layer, prune a copy of the network, count its MACs

The peer draws its ratios layer by layer, prunes a deep copy, as its pruner edits the network in
place, and counts with its `count_ops_and_params`. Moments come from random images: the time of a
solve depends on its size alone.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

import randprune as rp
from randprune.evaluate.allocator import keep_freed_memory
from randprune.recovery import DenseStatistics, recover
from randprune.zoo import build_model

DRAWS = 20_000
PEER = "peer: the same job"


def ours(model: nn.Module, example: torch.Tensor, images: int) -> dict[str, Callable[[], int]]:
    """Our cases: each returns how many candidates it made."""
    started = time.perf_counter()
    space = rp.trace(model, example)
    traced = time.perf_counter() - started
    scores = rp.score(model, space, "l1")
    budget = rp.Budget("macs", 0.5)
    cost = space.cost("macs")
    rng = np.random.default_rng(0)
    strategy = rp.RandomSearch()

    def build() -> tuple[nn.Module, rp.Selection]:
        widths = strategy.ask(space, budget, 1, rng)[0]
        selection = rp.select(space, scores, widths)
        return rp.cut(model, space, selection), selection

    shared = DenseStatistics(model, space)
    data = [torch.randn(8, *example.shape[1:]) for _ in range(images // 8)]
    started = time.perf_counter()
    small, selection = build()
    recover(small, model, space, selection, "least_squares", data, shared=shared)
    moments = time.perf_counter() - started
    print(f"  once: trace {traced:.2f} s, moments of {images} images {moments:.1f} s")

    def draw_and_cost() -> int:
        widths = rng.integers(1, space.widths + 1, (DRAWS, len(space)))
        return len(cost(widths))

    def built() -> int:
        build()
        return 1

    def repaired() -> int:
        small, selection = build()
        recover(small, model, space, selection, "least_squares", None, shared=shared)
        return 1

    return {
        "draw and cost": draw_and_cost,
        "draw, cost and build": built,
        "+ repair": repaired,
    }


def peer(model: nn.Module, example: torch.Tensor) -> Iterator[tuple[str, Callable[[], int]]]:
    """Torch-Pruning's case, where it is installed."""
    if importlib.util.find_spec("torch_pruning") is None:
        return
    import torch_pruning as tp

    rng = np.random.default_rng(0)
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]

    def candidate() -> int:
        network = copy.deepcopy(model)
        modules = dict(network.named_modules())
        last_name = next(n for n, m in model.named_modules() if m is last)
        ratios = {modules[name]: 1 - rng.uniform(0.4, 1.0) for name in names}
        pruner = tp.pruner.BasePruner(
            network, example, importance=tp.importance.MagnitudeImportance(p=1),
            pruning_ratio_dict=ratios, ignored_layers=[modules[last_name]],
        )  # fmt: skip
        pruner.step()
        tp.utils.count_ops_and_params(network, example)
        return 1

    yield PEER, candidate


def measure(
    cases: dict[str, Callable[[], int]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds per candidate of each case, round by round."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for round_ in range(rounds + 1):
        for name, run in cases.items():
            started = clock()
            made = run()
            if round_:
                taken[name].append((clock() - started) / made)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="randprune:resnet56,torchvision:resnet50")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--processor", action="store_true", help="processor time, where other work is going on"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    keep_freed_memory()  # as every job does
    document = {}
    for spec in arguments.models.split(","):
        small_images = spec.startswith("randprune:")
        example = torch.randn(1, 3, *((32, 32) if small_images else (224, 224)))
        model = build_model(spec).eval()
        print(spec)
        cases = ours(model, example, 512 if small_images else 64)
        try:
            with_peer = {**cases, **dict(peer(model, example))}
            if PEER in with_peer:
                with_peer[PEER]()
        except Exception as error:
            print(f"  {PEER} fails: {type(error).__name__}: {error}".splitlines()[0])
            with_peer = cases
        clock = time.process_time if arguments.processor else time.perf_counter
        taken = measure(with_peer, arguments.rounds, clock)
        document[spec] = taken
        for name, seconds in taken.items():
            ratio = ""
            if PEER in taken and name != PEER:
                within = [b / a for a, b in zip(seconds, taken[PEER], strict=True)]
                ratio = f"   peer takes {statistics.median(within):,.1f} times as long"
            print(f"  {name:<24}{statistics.median(seconds) * 1e3:>12,.4f} ms"
                  f"   ({min(seconds) * 1e3:,.4f}-{max(seconds) * 1e3:,.4f}){ratio}")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
