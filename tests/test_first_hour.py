"""What a newcomer does first: `randprune prune` on published networks and on one of his own."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import randprune as rp
from randprune.bench.methods import methods
from randprune.cli.progress import doubts
from randprune.cli.recipes import with_network_defaults
from randprune.criteria import criteria
from randprune.jobs.doubts import beaten
from randprune.recovery import recoveries
from randprune.store import DENSE, SEARCHED, UNIFORM, Accuracy, NetworkRow
from randprune.strategies import strategies
from randprune.zoo.models import OWN_MODELS, build_model

OWN = """
from torch import nn


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


class Net(nn.Module):
    def __init__(self, num_classes=2):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.SiLU(inplace=True)
        )
        self.blocks = nn.Sequential(Block(12), Block(12))
        self.head = nn.Linear(12, num_classes)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 32 x 32 images of two classes, one bright, one dark, with `train` and `test`."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 4)):
        for name, level in (("bright", 150), ("dark", 20)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = level + rng.integers(0, 80, (32, 32, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.mark.parametrize(
    "network",
    [
        "torchvision:resnet18",
        "torchvision:mobilenet_v2",
        "torchvision:efficientnet_b0",
        "my_first_net:Net",
    ],
)
def test_prune_and_fine_tune(
    run: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    (tmp_path / "my_first_net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    code, out, err = run(
        "prune", network, "--num-classes", "2", "--data", f"imagefolder:{photos}",
        "--epochs", "1", "--batch-size", "8", "-n", "2", "--finalists", "1",
        "--calibration", "8", "--search-images", "8", "--out", "half",
        "--set", "output.latency_seconds=0",
    )  # fmt: skip
    assert code == 0, err
    assert "of the MACs" in out
    assert "dense accuracy" in err
    # A file may not name code to run: the user's own network is passed by the user.
    own = build_model(network, 2) if network.startswith("my_") else None
    small = rp.load(tmp_path / "half" / "pruned.safetensors", model=own)
    images = torch.zeros(1, 3, 32, 32)
    dense = rp.trace(build_model(network, 2), images).cost("macs").dense
    assert rp.trace(small, images).cost("macs").dense / dense == pytest.approx(0.5, abs=0.006)


def test_the_plan_says_what_is_done_to_the_images(
    run: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_first_net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    asked = ("prune", "my_first_net:Net", "--data", f"imagefolder:{photos}", "--epochs", "1")
    code, out, err = run(*asked, "--dry-run")
    assert code == 0, err
    assert "3 x 32 x 32, as in the files; mean 0.485, 0.456, 0.406" in out
    assert "about " in out
    code, out, err = run(
        *asked, "--dry-run", "--image-size", "64", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2"
    )
    assert code == 0, err
    assert "files 32 x 32, resized to a shorter side of 73 and cropped to 3 x 64 x 64" in out
    assert "mean 0.5, 0.5, 0.5, deviation 0.2, 0.2, 0.2" in out
    code, _, err = run(*asked, "--mean", "grey", "--dry-run")
    assert code == 2
    assert "The option --mean takes numbers with commas between them" in err


def test_a_dry_run_compares_classes_with_outputs(run: Any, photos: Path) -> None:
    code, _, err = run(
        "prune", "torchvision:resnet18", "--data", f"imagefolder:{photos}", "--dry-run"
    )
    assert code == 2
    assert "The network tells 1000 classes apart" in err


def test_timm_says_how_its_networks_were_normalised() -> None:
    def options(spec: str, **given: Any) -> dict[str, Any]:
        document = {"model": {"spec": spec}, "data": {"spec": "imagefolder:x", "options": given}}
        found: dict[str, Any] = with_network_defaults(document)["data"]["options"]
        return found

    assert options("timm:inception_v3") == {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert options("timm:inception_v3", mean=[0.1] * 3) == {"mean": [0.1] * 3}
    assert options("timm:no_such_network") == {}
    assert options("torchvision:resnet18") == {}


def test_an_untrained_network_is_warned_about() -> None:
    (said,) = doubts({"dense_accuracy": 0.12, "chance_accuracy": 0.1})
    assert "commonest class has 10.0\u00a0%" in said
    assert doubts({"dense_accuracy": 0.9, "chance_accuracy": 0.1}) == []
    assert doubts({"best_kl": 0.1}) == []


def test_a_control_that_beats_the_winner_is_named() -> None:
    def row(role: str, correct: int, stage: Any = "finetuned") -> NetworkRow:
        return NetworkRow(label=role, role=role, stage=stage, test=Accuracy(correct, 100))

    rows = [row(DENSE, 99, "dense"), row(SEARCHED, 90), row(UNIFORM, 92), row("random", 80)]
    assert beaten(rows) == [
        "Warning: uniform has 92.0\u00a0% test accuracy (finetuned), the searched network "
        "90.0\u00a0%: the search did not pay here."
    ]
    assert beaten([row(SEARCHED, 90), row(UNIFORM, 95, "repaired")]) == []
    assert beaten([row(SEARCHED, 10, "cut"), row(UNIFORM, 20, "cut")]) == []


def test_the_newcomers_hour_in_the_documents(tmp_path: Path) -> None:
    """Its file is written, its commands run, and each line that it shows is printed."""
    text = (Path(__file__).parents[1] / "docs" / "getting-started.md").read_text()
    section = text.partition("## A first hour\n")[2].partition("\n## ")[0]
    source, session = re.findall(r"```(?:python|console)\n(.*?)```", section, re.S)
    (tmp_path / "mynet.py").write_text(source)
    commands = re.split(r"^\$ ", session, flags=re.M)[1:]
    assert len(commands) == 5
    for command in commands:
        line, *shown = command.strip().splitlines()
        program, *arguments = shlex.split(line)
        start = [sys.executable] + (["-m", "randprune"] if program == "randprune" else [])
        done = subprocess.run(
            [*start, *arguments], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        printed = done.stdout.replace("\u00a0", " ")
        for expected in shown:
            assert expected in printed, printed
    assert (tmp_path / "small.onnx").stat().st_size > 1000


def test_what_a_newcomer_types_instead_is_answered_with_what_works(
    run: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "photos").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "mine.py"):
        code, _, err = run("inspect", name)
        assert code == 2
        assert "The file 'mine.py' is there; what makes the network in it may be: mine:Block" in err
        assert "mine:Net." in err
    code, _, err = run("prune", "mine:Net", "--data", "photos")
    assert code == 2
    assert "name how it is read, as in imagefolder:photos" in err
    code, _, err = run("inspect", "mine:Net", "--input", "3x32x32")
    assert code == 2
    assert "e.g. (1, 3, 32, 32)" in err
    code, _, err = run("prune", "torchvision:resnet18", "--data", "imagefolder:photos", "--dry-run")
    assert code == 2
    assert "(--num-classes 2)" in err


def test_all_names_are_listed(run: Any) -> None:
    code, out, err = run("list", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["models"] == [f"randprune:{name}" for name in OWN_MODELS]
    assert "imagefolder:DIR" in found["data"]
    for kind, registry in (
        ("criteria", criteria), ("strategies", strategies), ("recoveries", recoveries),
        ("methods", methods),
    ):  # fmt: skip
        assert found[kind] == list(registry)
        assert found[kind]
    assert "f1" in found["studies"]
    code, out, _ = run("list", "torchvision")
    assert "torchvision:resnet18" in out.splitlines()
    code, _, err = run("list", "colours")
    assert code == 2
    assert "Got 'colours' instead" in err
