"""One small run per task: trained here, pruned to half of its MACs, beside two controls.

    python benchmarks/tasks.py camvid --epochs 6 --data ../shared/data
    python benchmarks/tasks.py lraspp|fsdd|angle|unlabelled --data ../shared/data
    python benchmarks/tasks.py page            # docs/results/tasks.md from what has been run

Networks are trained for minutes on a CPU: the numbers compare ways to prune one network, and claim
nothing about the data sets. Each run writes docs/results/tasks/NAME.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import randprune as rp
from randprune.tasks import Regression, Segmentation
from randprune.zoo import sources
from randprune.zoo.vision import torchvision

FOLDER = Path("docs/results/tasks")
SETTINGS: dict[str, Any] = {"output": {"latency_seconds": 0.0}, "finalists": {"count": 3}}
CANDIDATES = 10


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Four scales, joined by concatenation; logits of 11 classes."""

    def __init__(self, width: int = 16, classes: int = 11) -> None:
        super().__init__()
        sizes = [width, 2 * width, 3 * width, 4 * width]
        self.down = nn.ModuleList(
            nn.Sequential(block(a, b, 1 if i == 0 else 2), block(b, b))
            for i, (a, b) in enumerate(zip([3, *sizes], sizes, strict=False))
        )
        self.up = nn.ModuleList(
            block(a + b, b) for a, b in zip(sizes[:0:-1], sizes[-2::-1], strict=True)
        )
        self.out = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for down in self.down:
            x = down(x)
            kept.append(x)
        for up, beside in zip(self.up, kept[-2::-1], strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = up(torch.cat([x, beside], dim=1))
        return self.out(x)


class Sound(nn.Module):
    """Convolutions along time; logits of ten digits."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        sizes = [1, width, 2 * width, 2 * width, 3 * width, 3 * width]
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(itertools.pairwise(sizes)):
            kernel, stride = (31, 8) if i == 0 else (9, 2)
            layers += [nn.Conv1d(a, b, kernel, stride, kernel // 2, bias=False)]
            layers += [nn.BatchNorm1d(b), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(sizes[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(2))


class Angle(nn.Module):
    """By how many degrees a digit is turned."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            block(1, 16), block(16, 24), block(24, 32, 2), block(32, 32), block(32, 48, 2)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(48 * 16, 48), nn.ReLU(), nn.Linear(48, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def train(network: nn.Module, inputs: Tensor, loss: Any, epochs: int, lr: float = 3e-3) -> None:
    """AdamW with a cosine; `loss(outputs, index)`."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=1e-3)
    batch = 16 if inputs.ndim == 4 and inputs.shape[1] == 3 else 64
    steps = epochs * (len(inputs) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    network.train()
    for epoch in range(epochs):
        total, start = 0.0, time.perf_counter()
        order = torch.randperm(len(inputs))
        for part in order.split(batch)[: len(inputs) // batch]:
            optimizer.zero_grad()
            found = loss(network(inputs[part]), part)
            found.backward()
            optimizer.step()
            schedule.step()
            total += float(found.detach())
        spent = time.perf_counter() - start
        print(
            f"  epoch {epoch + 1}: loss {total * batch / len(inputs):.3f}, {spent:.0f} s",
            flush=True,
        )
    network.eval()


def street_scenes(folder: Path) -> dict[str, Any]:
    """CamVid at 160 x 120 pixels."""

    def part(name: str) -> dict[str, Tensor]:
        files = sorted((folder / "camvid" / name).glob("*.jpg"))
        size, labels = (160, 120), folder / "camvid" / f"{name}annot"
        images = [np.array(Image.open(f).convert("RGB").resize(size)) for f in files]
        maps = [np.array(Image.open(labels / f"{f.stem}.png").resize(size, 0)) for f in files]
        pixels = torch.from_numpy(np.stack(images)).movedim(3, 1).float() / 255 - 0.5
        return {"x": pixels, "labels": torch.from_numpy(np.stack(maps)).long()}

    return {"train": part("train"), "test": part("test")}


def camvid(folder: Path) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """Street scenes at 160 x 120 pixels, a U-Net; 11 classes, what has none does not count."""
    data = street_scenes(folder)
    network, labels = UNet(), data["train"]["labels"]
    images = data["train"]["x"]
    train(network, images, lambda z, i: F.cross_entropy(z, labels[i], ignore_index=11), 25)
    return network, data, {"task": Segmentation(ignore=11), "lr": 0.003}


def lraspp(folder: Path) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """The same scenes, torchvision's LR-ASPP on MobileNet-V3 (depthwise) from random weights."""
    models = torchvision().models.segmentation
    data = street_scenes(folder)
    network = models.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=11)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # torchvision's 0.01 is too slow for a few hundred steps
    labels, images = data["train"]["labels"], data["train"]["x"]

    def loss(outputs: Any, part: Tensor) -> Tensor:
        return F.cross_entropy(outputs["out"], labels[part], ignore_index=11)

    train(network, images, loss, 14)
    return network, data, {"task": Segmentation(ignore=11), "lr": 0.003}


def fsdd(folder: Path) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """Spoken digits, half a second at 8 kHz, 1-D convolutions; indices 0-4 are the test set."""
    with np.load(folder / "fsdd" / "recordings.npz") as file:
        held = {name: file[name] for name in file.files}  # each access reads the file anew
    ends = held["lengths"].cumsum()
    rows = np.zeros((len(ends), 4096), np.float32)
    for row, end, length in zip(rows, ends, held["lengths"], strict=True):
        sound = held["samples"][end - length : end][:4096].astype(np.float32)
        row[: len(sound)] = sound / max(1.0, np.abs(sound).max())
    sounds, digits = torch.from_numpy(rows)[:, None], torch.from_numpy(held["digits"]).long()
    test = torch.from_numpy(held["indices"] < 5)
    data = {
        "train": {"x": sounds[~test], "labels": digits[~test]},
        "test": {"x": sounds[test], "labels": digits[test]},
    }
    network, labels = Sound(), data["train"]["labels"]
    train(network, data["train"]["x"], lambda z, i: F.cross_entropy(z, labels[i]), 6)
    return network, data, {"task": "classification", "lr": 0.01}


def angle(folder: Path) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """The package's digits at 16 x 16 pixels, turned by -60 to 60 degrees: which angle?"""
    with np.load(Path(sources.__file__).with_name("digits.npz")) as file:
        images = torch.from_numpy(file["images"]).float()[:, None] / 16
    generator = torch.Generator().manual_seed(0)
    images = images.repeat(3, 1, 1, 1)[torch.randperm(3 * len(images), generator=generator)]
    degrees = 120 * torch.rand(len(images), generator=generator) - 60
    turn = torch.deg2rad(degrees)
    cos, sin, zero = turn.cos(), turn.sin(), torch.zeros_like(turn)
    matrix = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(matrix, [len(images), 1, 16, 16], align_corners=False)
    turned = F.grid_sample(images, grid, align_corners=False)
    test = slice(4392, None)
    data = {
        "train": (turned[:4392], degrees[:4392]),
        "test": (turned[test], degrees[test]),
    }
    network = Angle()
    wanted = degrees / 60

    def loss(z: Tensor, part: Tensor) -> Tensor:
        return (z[:, 0] - wanted[part]).square().mean()

    train(network, turned[:4392], loss, 6)
    with torch.no_grad():  # in degrees, as the targets are
        network.head[3].weight.mul_(60)
        network.head[3].bias.mul_(60)
    return network, data, {"task": Regression(unit="degrees"), "lr": 1e-5}


def unlabelled(folder: Path) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """CIFAR images without labels, the ResNet-20 that is given, no training data of any kind."""
    from randprune.zoo.models import build_model
    from randprune.zoo.weights import load_weights

    network = build_model("randprune:resnet20")
    load_weights(network, folder / "weights" / "cifar10_resnet20.safetensors")
    mean, std = (
        torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )

    def part(name: str, count: int) -> Tensor:
        pixels = np.load(folder / "cifar10" / f"{name}.npz")["images"][:count]
        return (torch.from_numpy(pixels).movedim(3, 1).float() / 255 - mean) / std

    data = {"train": part("train-0", 1500), "test": part("test", 1000)}
    return network.eval(), data, {"task": None, "lr": 0.001}


RUNS = {"camvid": camvid, "lraspp": lraspp, "fsdd": fsdd, "angle": angle, "unlabelled": unlabelled}


def run(name: str, folder: Path, epochs: int) -> None:
    torch.manual_seed(0)
    start = time.perf_counter()
    network, data, how = RUNS[name](folder)
    trained = time.perf_counter() - start
    result = rp.prune(
        network,
        data,
        0.5,
        candidates=CANDIDATES,
        task=how["task"],
        finetune={"epochs": epochs, "controls": True, "lr": how["lr"]},
        settings=SETTINGS,
    )
    print(result.summary())
    rows = [
        {
            "label": row.label,
            "role": row.role,
            "stage": row.stage,
            "value": None if row.test is None else row.test.share,
            "macs": row.macs,
        }
        for row in result.networks
    ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    document = {
        "run": name,
        "about": (RUNS[name].__doc__ or "").strip(),
        "metric": result.metric.name,
        "unit": result.metric.unit,
        "higher_is_better": result.metric.higher_is_better,
        "candidates": CANDIDATES,
        "epochs": epochs,
        "training_seconds": round(trained),
        "pruning_seconds": round(result.seconds),
        "networks": rows,
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def page() -> str:
    """docs/results/tasks.md of the runs at hand."""
    lines = [
        "# One run a task",
        "",
        "Networks trained for minutes on a CPU and pruned to half of their MACs by",
        "`benchmarks/tasks.py`, whose docstring has the commands: one seed, small images. The",
        "numbers compare ways to prune one network; they claim nothing about the data sets.",
    ]
    for path in sorted(FOLDER.glob("*.json")):
        found = json.loads(path.read_text())
        rows = found["networks"]
        better = "higher" if found["higher_is_better"] else "lower"
        lines += ["", f"## {found['run']}", "", found["about"], ""]
        lines += [
            f"{found['metric'][:1].upper()}{found['metric'][1:]}, {better} is better; "
            f"{found['candidates']} candidates, {found['epochs']} epochs of fine-tuning.",
            "",
            "| network | MACs | cut | repaired, no training | fine-tuned |",
            "|---|---|---|---|---|",
        ]
        dense = next(row for row in rows if row["role"] == "dense")
        for label in dict.fromkeys(row["label"] for row in rows):
            own = {row["stage"]: row for row in rows if row["label"] == label}
            any_row = next(iter(own.values()))
            cells = [
                shown(own[stage]["value"], found["unit"]) if stage in own else ""
                for stage in ("cut", "repaired", "finetuned")
            ]
            if any_row["role"] == "dense":
                cells = [shown(any_row["value"], found["unit"]), "", ""]
            share = any_row["macs"] / dense["macs"]
            lines.append(f"| {label} | {100 * share:.1f} % | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def shown(value: float | None, unit: str) -> str:
    if value is None:
        return "failed"
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.3g} {unit}".strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*RUNS, "page"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--epochs", type=int, default=2)
    asked = parser.parse_args()
    if asked.what == "page":
        Path("docs/results/tasks.md").write_text(page())
    else:
        run(asked.what, asked.data, asked.epochs)


if __name__ == "__main__":
    main()
