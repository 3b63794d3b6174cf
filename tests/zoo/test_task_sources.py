"""Sources of label maps, of numbers, and of a function's own; and their way through the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from randprune.cli.app import app
from randprune.errors import DataError, InvalidInputError
from randprune.zoo.data import load_data


class Maps(nn.Module):
    """Two classes a pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.b(torch.relu(self.a(x)))}


def own_data(count: int = 40) -> tuple[Tensor, Tensor]:
    """What a function may return."""
    x = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, x.mean((1, 2, 3))[:, None]


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 5)):
        for i in range(count):
            for name, shape in ((part, (8, 10, 3)), (f"{part}annot", (8, 10))):
                folder = tmp_path / name
                folder.mkdir(exist_ok=True)
                high = 256 if name == part else 2
                pixels = rng.integers(0, high, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return tmp_path


def test_label_maps_lie_beside_their_images(scenes: Path) -> None:
    data = load_data(f"segmentation:{scenes}", size=6, mean=(0, 0, 0), std=(1, 1, 1), search=5)
    assert (len(data.full_train), len(data.open_test("a test")), len(data.search)) == (30, 5, 5)
    images, maps = next(data.full_train.batches(3))
    assert images.shape == (3, 3, 6, 6)
    assert (maps.shape, maps.dtype) == ((3, 6, 6), torch.int64)
    assert set(maps.unique().tolist()) <= {0, 1}
    assert 0.0 <= float(images.min()) <= float(images.max()) <= 1.0
    (scenes / "trainannot" / "000.png").unlink()
    with pytest.raises(DataError, match=r"1 of 30 images in .* the first is 000\.png"):
        load_data(f"segmentation:{scenes}")
    with pytest.raises(DataError, match=r"does not exist\. Expected"):
        load_data(f"segmentation:{scenes / 'train'}")
    with pytest.raises(InvalidInputError, match="source 'segmentation' has no option 'pad'"):
        load_data(f"segmentation:{scenes}", pad=1)


def test_a_table_has_paths_and_numbers(scenes: Path) -> None:
    lines = ["path,angle,size", *(f"train/{i:03d}.png,{i},{i / 2}" for i in range(20))]
    path = scenes / "targets.csv"
    path.write_text("\n".join(lines))
    data = load_data(f"csv:{path}", mean=(0, 0, 0), std=(1, 1, 1))
    assert (len(data.full_train), len(data.open_test("a test"))) == (16, 4)
    images, targets = next(data.full_train.batches(16))
    assert images.shape == (16, 3, 8, 10)
    assert torch.equal(targets[:, 0], 2 * targets[:, 1])
    path.write_text("train/000.png,1\ntrain/001.png,much")
    with pytest.raises(DataError, match=r"Line 2 of the values in .* is 'train/001.png,much'"):
        load_data(f"csv:{path}")
    with pytest.raises(DataError, match="cannot be read"):
        load_data(f"csv:{scenes / 'none.csv'}")


def test_a_function_gives_what_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    data = load_data("test_task_sources:own_data")
    assert (len(data.full_train), data.num_classes, data.name) == (
        32, 0, "test_task_sources:own_data",
    )  # fmt: skip
    with pytest.raises(InvalidInputError, match="test_task_sources:none' cannot be imported"):
        load_data("test_task_sources:none")
    with pytest.raises(InvalidInputError, match=r"rejects \{'far': 1\}"):
        load_data("test_task_sources:own_data", far=1)
    with pytest.raises(InvalidInputError, match=r"segmentation:DIR, csv:FILE and package\.module"):
        load_data("npzz:DIR")


def test_the_command_prunes_a_segmentation_network(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    command = [
        "prune", "test_task_sources:Maps", "--data", f"segmentation:{scenes}", "--task",
        "segmentation", "--budget", "0.5", "--candidates", "2", "--out", str(tmp_path / "run"),
        "--set", "budget.tolerance=0.2", "--set", "output.latency_seconds=0", "--json", "--quiet",
    ]  # fmt: skip
    dry = CliRunner().invoke(app, [*command, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["metric"]["name"] == "mean IoU"
    assert "test mean IoU" in found["headline"]
