"""What data-driven criteria cost: KL's fast way against the plain loop, and all criteria together.

    python benchmarks/kl_speed.py --model randprune:resnet20 --images 64 --rounds 5
    python benchmarks/kl_speed.py --together --cpu-time

KL scores of all channels of a network, one after the other in every round:

- "loop": one forward pass of the whole network for each channel, as it is, its weights masked;
- "loop, inference engine": the same loop on the copy that the evaluation engine would run, batch
  norms folded and in channels_last order, so that what is left of the ratio is recomputation saved;
- "fast": what `KL()` does.

With --together: every criterion by itself, and all of them in one call of `score_all`.

Medians over rounds, and the median of the ratios within rounds. The export of the network is part
of "fast" and of everything under --together. Images and weights are random: speed does not depend
on them. Scores are compared first; the benchmark stops where they disagree.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import randprune as rp
from randprune.criteria import KL, criteria, score_all
from randprune.criteria.kl import _add_slow
from randprune.criteria.removal import Masked
from randprune.evaluate.inference import inference_copy
from randprune.space import Space
from randprune.zoo.models import build_model

Data = tuple[Tensor, Tensor]
Case = Callable[[], object]
CONTROLS = ("random",)


def loop_on_engine(model: nn.Module, space: Space, data: Data) -> list[Tensor]:
    """KL by one forward pass per channel of the folded network in channels_last order."""
    images = data[0].contiguous(memory_format=torch.channels_last)
    copy = inference_copy(model, images[:4])
    totals = [torch.zeros(group.width, dtype=torch.float64) for group in space.groups]
    with torch.no_grad():
        masked = Masked(copy.network, space)
        _add_slow(masked, images, totals, set(range(len(totals))), "the images")
    return [total / len(images) for total in totals]


def kl_cases(model: nn.Module, space: Space, data: Data) -> dict[str, Case]:
    """The three ways; their scores are compared."""
    images = len(data[0])
    cases: dict[str, Case] = {
        "loop": lambda: rp.score(model, space, KL(images, fast=False), data),
        "loop, inference engine": lambda: loop_on_engine(model, space, data),
        "fast": lambda: rp.score(model, space, KL(images), data),
    }
    found = {name: case() for name, case in cases.items()}
    worst = max(
        float((a - b).abs().max() / b.max())
        for name in cases
        for a, b in zip(found[name], found["loop"], strict=True)  # type: ignore[call-overload]
    )
    if worst > 1e-3:
        raise SystemExit(f"The ways disagree: {worst:.1e} of the largest score of a group.")
    print(f"scores agree within {worst:.1e} of the largest of their group")
    return cases


def together_cases(model: nn.Module, space: Space, data: Data) -> dict[str, Case]:
    """Every criterion that looks at something, alone and together."""
    names = [name for name in criteria.names() if name not in CONTROLS]

    def alone(name: str) -> Case:
        return lambda: rp.score(model, space, name, data)

    cases = {name: alone(name) for name in names}
    cases["all together"] = lambda: score_all(model, space, names, data)
    return cases


def measure(
    cases: dict[str, Case], rounds: int, baseline: str, clock: Callable[[], float]
) -> list[dict[str, object]]:
    """Seconds of every case, interleaved, and its ratio to the baseline within rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            start = clock()
            case()
            seconds[name].append(clock() - start)
    return [
        {
            "case": name,
            "seconds": statistics.median(values),
            "lowest": min(values),
            "highest": max(values),
            "times_faster": statistics.median(
                b / v for b, v in zip(seconds[baseline], values, strict=True)
            ),
        }
        for name, values in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="randprune:resnet20")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU instead of wall seconds")
    parser.add_argument("--together", action="store_true", help="compare criteria, not KL's ways")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    size = arguments.image_size
    model = build_model(arguments.model).eval().to(arguments.device)
    space = rp.trace(model, torch.zeros(1, 3, size, size, device=arguments.device))
    classes = model(torch.zeros(1, 3, size, size, device=arguments.device)).shape[1]
    data = (
        torch.randn(arguments.images, 3, size, size).to(arguments.device),
        torch.randint(0, classes, (arguments.images,)).to(arguments.device),
    )
    print(f"{arguments.model}: {len(space)} groups, {space.widths.sum()} channels", end="; ")
    print(f"{arguments.images} images, {arguments.threads} threads, {arguments.device}")
    make, baseline = (together_cases, "all together") if arguments.together else (kl_cases, "loop")
    cases = make(model, space, data)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    rows = measure(cases, arguments.rounds, baseline, clock)
    unit = "CPU s" if arguments.cpu_time else "s"
    print(f"{'case':<26}{unit:>10}{'lowest':>10}{'highest':>10}  {baseline} / case")
    for row in rows:
        print(
            f"{row['case']:<26}{row['seconds']:>10.2f}{row['lowest']:>10.2f}"
            f"{row['highest']:>10.2f}{row['times_faster']:>10.2f}"
        )
    if arguments.json:
        document = {
            "model": arguments.model,
            "image_size": size,
            "images": arguments.images,
            "channels": int(space.widths.sum()),
            "rounds": arguments.rounds,
            "clock": unit,
            "rows": rows,
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "threads": arguments.threads,
                "device": arguments.device,
                "load": os.getloadavg()[0],
                "python": platform.python_version(),
                "torch": torch.__version__,
            },
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
