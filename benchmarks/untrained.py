"""The best network that nobody trained: `randprune prune` on real networks, seed by seed.

    python benchmarks/untrained.py run --data ../shared/data --work runs/untrained
    python benchmarks/untrained.py run --rows resnet56-50 --presets default --seeds 0,1
    python benchmarks/untrained.py page            # docs/results/untrained.md from the records

Each run is the command that a user would give, in a process of its own with one thread; a seed
changes the images that calibrate and rank, and all draws. Every finished run is one file of
docs/results/untrained, which holds the command, all networks of its table and the time of each
phase; what is there is not run again, so that an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import randprune as rp
from measures import interval
from randprune.recovery import DenseStatistics, recover
from randprune.zoo import Data, build_model, load_data, load_weights

FOLDER = Path("docs/results/untrained")
PAGE = Path("docs/results/untrained.md")


@dataclass(frozen=True)
class Row:
    """A network, its images and a share of its multiply-adds."""

    title: str
    model: str
    weights: str
    images: str
    budget: float
    options: tuple[str, ...] = ()

    def command(self, preset: str, seed: int) -> list[str]:
        arguments = ["prune", self.model, "--weights", self.weights, "--data", self.images]
        arguments += [*self.options, "--budget", str(self.budget), "--preset", preset]
        return [*arguments, "--seed", str(seed), "--set", f"data.seed={seed}"]


CLASSES = ("--set", "data.options.classes=imagenet_wnids.json")
IMAGENETTE = ("--calibration", "450", "--search-images", "500", *CLASSES)
LITE0 = "timm:tf_efficientnet_lite0", "weights/imagenet_efficientnet_lite0_fp16.safetensors"
SQUEEZE = "torchvision:squeezenet1_1", "weights/imagenet_squeezenet1_1_fp16.safetensors"
RESNET20 = "randprune:resnet20", "weights/cifar10_resnet20.safetensors", "npz:cifar10"
RESNET56 = "randprune:resnet56", "weights/cifar10_resnet56.safetensors", "npz:cifar10"

ROWS = {
    "resnet20-50": Row("ResNet-20, CIFAR-10", *RESNET20, 0.5),
    "resnet20-30": Row("ResNet-20, CIFAR-10", *RESNET20, 0.3),
    "resnet56-50": Row("ResNet-56, CIFAR-10", *RESNET56, 0.5),
    "resnet56-44": Row("ResNet-56, CIFAR-10", *RESNET56, 0.441),
    "lite0-70": Row(
        "EfficientNet-Lite0, Imagenette",
        *LITE0,
        "imagefolder:imagenette",
        0.7,
        ("--mean", ".5,.5,.5", "--std", ".5,.5,.5", *IMAGENETTE),
    ),
    "squeezenet-70": Row(
        "SqueezeNet 1.1, Imagenette", *SQUEEZE, "imagefolder:imagenette", 0.7, IMAGENETTE
    ),
}
# The same, ranked by the user's own labels instead of the divergence from the outputs.
ROWS |= {
    f"{name}-{rank_by}": replace(
        ROWS[name],
        title=f"{ROWS[name].title}, ranked by {rank_by}",
        options=(*ROWS[name].options, "--rank-by", rank_by),
    )
    for rank_by in ("loss", "accuracy")
    for name in ("lite0-70", "squeezenet-70")
}
NETWORKS = {
    "dense": ("dense", "dense"),
    "searched": ("searched", "repaired"),
    "uniform": ("uniform", "repaired"),
    "random": ("random_channels", "repaired"),
}


def run(row: str, preset: str, seed: int, data: Path, work: Path) -> None:
    """One command, and its record."""
    name = f"{row}-{preset}-{seed}"
    record = FOLDER / f"{name}.json"
    if record.exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    for source in (data / "weights", data / "cifar10", data / "imagenette"):
        link = work / source.name
        if not link.exists():
            link.symlink_to(source.resolve())
    classes = work / "imagenet_wnids.json"
    if not classes.exists():
        classes.symlink_to((data / "imagenet_wnids.json").resolve())
    arguments = ROWS[row].command(preset, seed)
    print(f"{name}: randprune {shlex.join(arguments)}", flush=True)
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "randprune", *arguments, "--out", name, "--quiet"]
    source = str(Path(rp.__file__).resolve().parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    subprocess.run(command, cwd=work, env=environment, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    tables = work / name / "tables"
    phases: dict[str, float] = defaultdict(float)
    for entry in _read(tables / "ledger.csv"):
        phases[entry["phase"]] += float(entry["seconds"])
    found = {
        "row": row,
        "preset": preset,
        "seed": seed,
        "command": "randprune " + shlex.join(arguments),
        "seconds": round(time.perf_counter() - begun, 1),
        "processor_seconds": round(used.ru_utime - before.ru_utime, 1),
        "phase_seconds": {phase: round(seconds, 1) for phase, seconds in phases.items()},
        "networks": _networks(tables / "networks.csv"),
        "versions": {"randprune": rp.__version__, "torch": torch.__version__},
        "processor": platform.processor() or platform.machine(),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    unfinished = record.with_suffix(".part")
    unfinished.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(record)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _networks(path: Path) -> list[dict[str, Any]]:
    """Each network once: the tables have a line for every setting of the latency."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in _read(path):
        found[entry["role"], entry["stage"]] = {
            "role": entry["role"],
            "stage": entry["stage"],
            "recovery": entry["recovery"],
            "correct": int(entry["test_correct"]),
            "images": int(entry["test_images"]),
            "macs": float(entry["macs"]),
            "params": float(entry["params"]),
            "widths": entry["widths"],
        }
    return list(found.values())


def opened(row: str, folder: Path, seed: int) -> tuple[nn.Module, Data]:
    """The dense network of a row and its data, as the row's command opens them."""
    network, options = ROWS[row], {}
    dense = load_weights(build_model(network.model), folder / network.weights).eval()
    kind, _, images = network.images.partition(":")
    if kind == "imagefolder":
        options = {"calibration": 450, "search": 500}
        options["classes"] = str(folder / "imagenet_wnids.json")
    if "--mean" in network.options:
        options |= {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    return dense, load_data(f"{kind}:{folder / images}", seed=seed, **options)


def made_again(
    row: str, seed: int, dense: nn.Module, data: Data
) -> Iterator[tuple[str, nn.Module]]:
    """The repaired networks of a record by role, "searched" and "uniform", from what it holds.

    Channels are ranked and weights repaired on the run's own calibration images.
    """
    calibration = list(data.calibration.batches(128))
    space = rp.trace(dense, calibration[0][0][:1])
    shared = DenseStatistics(dense, space)
    scores = rp.score(dense, space, "reconstruction", calibration, shared=shared)
    record = json.loads((FOLDER / f"{row}-default-{seed}.json").read_text(encoding="utf-8"))
    for network in record["networks"]:
        if network["stage"] != "repaired" or network["role"] not in ("searched", "uniform"):
            continue
        selection = rp.select(space, scores, [int(w) for w in network["widths"].split()])
        small = rp.cut(dense, space, selection)
        recover(small, dense, space, selection, network["recovery"], calibration, shared=shared)
        yield network["role"], small


def page() -> str:
    """The table, from the records."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(FOLDER.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        runs[record["row"], record["preset"]].append(record)
    lines = [PAGE_HEAD]
    order = {name: i for i, name in enumerate(ROWS)}
    keys = sorted(runs, key=lambda key: (order[key[0]], key[1]))
    for row, preset in keys:
        lines.append(_line(row, preset, sorted(runs[row, preset], key=lambda r: r["seed"])))
    lines += [PAGE_COMMANDS]
    lines += [f"    {min(runs[key], key=lambda r: r['seed'])['command']}" for key in keys]
    return "\n".join(lines) + "\n"


def _line(row: str, preset: str, records: list[dict[str, Any]]) -> str:
    accuracy = {name: _accuracies(records, *key) for name, key in NETWORKS.items()}
    share = np.mean([_of(r, "searched", "repaired")["macs"] for r in records])
    share /= _of(records[0], "dense", "dense")["macs"]
    lead = accuracy["searched"] - accuracy["uniform"]
    minutes = np.median([r["processor_seconds"] for r in records]) / 60
    cells = [ROWS[row].title, f"{ROWS[row].budget:.1%} / {share:.1%}", preset, str(len(records))]
    cells += [f"{accuracy['dense'].mean():.2f}", interval(accuracy["searched"], signed=False)]
    cells += [f"{accuracy[name].mean():.2f}" for name in ("uniform", "random")]
    cells += [interval(lead), f"{minutes:.1f}"]
    return "| " + " | ".join(cells) + " |"


def _of(record: dict[str, Any], role: str, stage: str) -> dict[str, Any]:
    found = [n for n in record["networks"] if (n["role"], n["stage"]) == (role, stage)]
    if not found and role == "searched":  # uniform widths won
        return _of(record, "uniform", stage)
    (network,) = found
    return network


def _accuracies(records: list[dict[str, Any]], role: str, stage: str) -> np.ndarray:
    """In per cent of the test images, by seed."""
    networks = [_of(record, role, stage) for record in records]
    return np.array([100 * n["correct"] / n["images"] for n in networks])


PAGE_HEAD = """# Networks that nobody trained

One command each: search, cut, repair, no step of training. Test accuracy in per cent; ResNets on
the 10,000 test images of CIFAR-10, others on 500 validation images of ten classes, told from all
1,000. The test images are opened once a run. A seed changes the images that calibrate and rank,
and all draws. In brackets: Student's 95 % interval over seeds, which does not hold the error of the
test images themselves (one run on 500 images: about 4 points to either side). All rows of a run got
the same repair. *Ranked by*: `--rank-by`, in place of the divergence from the dense outputs;
`--preset labels` is the default ranked by accuracy. Processor time is the whole command's, with
its latency measurements and tests, in minutes of one core.

```
python benchmarks/untrained.py run --data ../shared/data --work runs/untrained
python benchmarks/untrained.py page
```

| network | MACs, asked / got | preset | seeds | dense | searched | uniform | random channels \
| searched - uniform | minutes |
|---|---|---|--:|--:|--:|--:|--:|--:|--:|"""

PAGE_COMMANDS = """
The commands of the first seed of each row, in a folder with the data beside it; all networks and
widths, and the time of each phase: docs/results/untrained/*.json.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=["run", "page"])
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--presets", default="default")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/untrained"))
    given = parser.parse_args()
    if given.step == "page":
        PAGE.write_text(page(), encoding="utf-8")
        return
    for seed in map(int, given.seeds.split(",")):
        for row in given.rows.split(","):
            for preset in given.presets.split(","):
                run(row, preset, seed, given.data, given.work)


if __name__ == "__main__":
    main()
