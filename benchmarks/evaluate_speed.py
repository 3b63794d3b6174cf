"""How much faster the evaluation engine is than a plain loop, on real CIFAR-10 images.

    python benchmarks/evaluate_speed.py [--data FOLDER] [--images 2000] [--rounds 7] [--json FILE]

FOLDER holds `cifar10/*.npz` and `weights/cifar10_resnet{20,56}.safetensors`; default: `shared/data`
beside the project. Compared, in turn, round by round:

- plain: float32, channels first, batches of 100, batch norm as it is; images ready in memory;
- float32: what the engine does for reported numbers;
- ranking: the fastest precision of this machine.

The time of the engine includes the preparation of each network (copy, folding and its check), not
that of the data, and not the choice of the engine, which is printed apart: both happen once for all
candidates. Ratios are medians within rounds, with the 95 % interval of the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from randprune.evaluate import Evaluator, choose_engine
from randprune.latency import median_interval
from randprune.zoo.data import load_data
from randprune.zoo.models import build_model
from randprune.zoo.splits import Split
from randprune.zoo.weights import load_weights

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--networks", default="resnet20,resnet56")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if not (arguments.data / "cifar10").is_dir():
        print(f"skipped: no folder cifar10 in {arguments.data}; name another with --data")
        return 0
    torch.set_num_threads(arguments.threads)
    data = load_data(
        f"npz:{arguments.data / 'cifar10'}", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    # Held-out training images: speed needs no test set.
    split = data.search.subset(range(arguments.images))
    rows = []
    for name in arguments.networks.split(","):
        model = build_model(f"randprune:{name}")
        load_weights(model, arguments.data / "weights" / f"cifar10_{name}.safetensors")
        rows += measure(name, model, split, arguments.rounds)
    print(
        f"{arguments.images} CIFAR-10 images, {arguments.threads} threads, "
        f"torch {torch.__version__}; medians of {arguments.rounds} interleaved rounds"
    )
    print(
        f"{'network':9} {'how':8} {'dtype':9} {'batch':>5} {'seconds':>8} {'images/s':>9}  speed-up"
    )
    for row in rows:
        print(
            f"{row['network']:9} {row['how']:8} {row['dtype']:9} {row['batch']:5} "
            f"{row['seconds']:8.3f} {row['images_per_second']:9.0f}  {row['speedup']:.2f} "
            f"[{row['low']:.2f}, {row['high']:.2f}]"
        )
    report = {"images": arguments.images, "threads": arguments.threads,
              "torch": torch.__version__, "rows": rows}  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(report))
    return 0


def measure(name: str, model: nn.Module, split: Split, rounds: int) -> list[dict[str, object]]:
    """One row per way to evaluate `model`, measured in turn."""
    start = time.perf_counter()
    ranking = choose_engine(model, split)
    print(f"{name}: engine chosen in {time.perf_counter() - start:.1f} s: {ranking.dtype}, "
          f"batch {ranking.batch_size}")  # fmt: skip
    exact = Evaluator(split, precision="float32")
    fast = Evaluator(split, engine=ranking)
    exact_engine = exact.engine_for(model)
    plain_batches = list(split.batches(100))
    model.eval()

    def plain() -> int:
        correct = 0
        with torch.no_grad():
            for images, labels in plain_batches:
                correct += int((model(images).argmax(1) == labels).sum())
        return correct

    ways: dict[str, tuple[str, int, Callable[[], int]]] = {
        "plain": ("float32", 100, plain),
        "float32": ("float32", exact_engine.batch_size, lambda: exact.accuracy(model).correct),
        "ranking": (ranking.dtype, ranking.batch_size, lambda: fast.accuracy(model).correct),
    }
    seconds: dict[str, list[float]] = {how: [] for how in ways}
    correct = {how: run() for how, (_, _, run) in ways.items()}  # warm-up
    for turn in range(rounds):
        for how in list(ways) if turn % 2 else list(reversed(ways)):
            start = time.perf_counter()
            ways[how][2]()
            seconds[how].append(time.perf_counter() - start)
    rows: list[dict[str, object]] = []
    for how, (dtype, batch, _) in ways.items():
        ratios = [p / s for p, s in zip(seconds["plain"], seconds[how], strict=True)]
        low, high = median_interval(ratios)
        middle = statistics.median(seconds[how])
        rows.append({
            "network": name, "how": how, "dtype": dtype, "batch": batch, "seconds": middle,
            "images_per_second": len(split) / middle, "top1": correct[how] / len(split),
            "speedup": statistics.median(ratios), "low": low, "high": high,
            "samples": seconds[how],
        })  # fmt: skip
    return rows


if __name__ == "__main__":
    sys.exit(main())
