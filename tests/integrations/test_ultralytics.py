"""YOLO models pruned, trained by their own trainer, saved, loaded; needs ultralytics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import randprune as rp
from randprune.lineage import plan_of
from randprune.zoo.vision import torchvision

os.environ["YOLO_OFFLINE"], os.environ["YOLO_AUTOINSTALL"] = "true", "false"
torchvision()
pytest.importorskip(
    "ultralytics",
    reason="ultralytics is not installed (AGPL, no dependency): make integrations",
    exc_type=ImportError,
)
from ultralytics import YOLO  # noqa: E402

from randprune.integrations import ultralytics as rp_yolo  # noqa: E402

# Its data loaders and exporters warn about what does not concern us.
pytestmark = pytest.mark.filterwarnings("ignore")

NETWORK = """
nc: 2
scales:
  n: [0.33, 0.125, 1024]
scale: n
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 1, C2f, [128, True]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 1, C3k2, [256, True]]
head:
  - [[2, 4], 1, Detect, [nc]]
"""
SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A data set of coloured squares, and the description of a tiny network."""
    root = tmp_path_factory.mktemp("yolo")
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for kind in ("images", "labels"):
            (root / kind / part).mkdir(parents=True)
        for number in range(count):
            picture = rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
            picture[10:40, 10:40] = [255 * (number % 2), 0, 0]
            Image.fromarray(picture).save(root / "images" / part / f"{number}.png")
            box = f"{number % 2} 0.39 0.39 0.47 0.47\n"
            (root / "labels" / part / f"{number}.txt").write_text(box)
    names = "names:\n  0: red\n  1: black\n"
    (root / "data.yaml").write_text(
        f"path: {root}\ntrain: images/train\nval: images/val\n{names}", encoding="utf-8"
    )
    (root / "tinyn.yaml").write_text(NETWORK, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def dense(folder) -> Any:
    """A network whose outputs depend on its input, as a trained one's do."""
    yolo = YOLO(str(folder / "tinyn.yaml"))
    network = yolo.model
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d) and layer.weight.shape[0] > 1:
                nn.init.kaiming_normal_(layer.weight)
        for norm in norms:
            norm.momentum = None
        network.train()(torch.rand(16, 3, SIZE, SIZE))
        for norm in norms:
            norm.momentum = 0.03
    network.eval()
    return yolo


@pytest.fixture(scope="module")
def small(dense, folder) -> Any:
    return rp_yolo.prune(
        dense, str(folder / "data.yaml"), 0.5, imgsz=SIZE, strategy="random", candidates=2
    )


def training(folder: Path, name: str) -> dict[str, Any]:
    return {
        "epochs": 1, "imgsz": SIZE, "batch": 4, "workers": 0, "device": "cpu", "plots": False,
        "amp": False, "verbose": False, "project": str(folder / "runs"), "name": name,
        "data": str(folder / "data.yaml"),
    }  # fmt: skip


def output(yolo: Any) -> torch.Tensor:
    picture = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return yolo.model.float().eval()(picture)[0]


def widths(yolo: Any) -> list[int]:
    return [m.out_channels for m in yolo.model.modules() if isinstance(m, nn.Conv2d)]


class TestPruning:
    def test_it_keeps_half_and_the_caller_keeps_everything(self, dense, small, folder):
        assert isinstance(small, YOLO)
        assert abs(small.pruning.macs - 0.5) < 0.01
        assert sum(widths(small)) < sum(widths(dense)) == sum(widths(YOLO(folder / "tinyn.yaml")))
        assert plan_of(dense.model) is None
        assert small.names == dense.names

    def test_the_maps_that_the_head_reads_are_cut_too(self, small):
        layers = {frozen.layer for frozen in small.pruning.space.frozen}
        assert layers == {f"model.5.cv{branch}.{level}.2" for branch in (2, 3) for level in (0, 1)}

    def test_it_validates_and_predicts_and_stays_trainable(self, small, folder):
        found = small.val(
            data=str(folder / "data.yaml"), imgsz=SIZE, batch=4, device="cpu", plots=False,
            workers=0, verbose=False, project=str(folder / "runs"),
        )  # fmt: skip
        assert 0.0 <= found.box.map <= 1.0
        picture = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
        assert len(small.predict(picture, imgsz=SIZE, verbose=False)) == 1
        assert not small.model.is_fused()

    def test_its_trainer_keeps_the_network(self, small, folder):
        before = widths(small)
        tuned = rp_yolo._wrapped(small, small.model, small.pruning)
        tuned.train(**training(folder, "tuned"))
        assert widths(tuned) == before
        assert any(
            not torch.equal(a, b)
            for a, b in zip(tuned.model.parameters(), small.model.parameters(), strict=True)
        )
        assert plan_of(tuned.model).selection == small.pruning.selection
        last = folder / "runs" / "tuned" / "weights" / "last.pt"
        again = rp_yolo.load(last)
        assert isinstance(again, rp_yolo.PrunedYOLO)
        again.train(**training(folder, "again"))
        assert widths(again) == before

    def test_finetune_is_passed_on(self, dense, folder):
        tuned = rp_yolo.prune(
            dense, str(folder / "data.yaml"), 0.5, imgsz=SIZE, strategy="random", candidates=1,
            finetune={**training(folder, "one-call"), "epochs": 2},
        )  # fmt: skip
        rows = (folder / "runs" / "one-call" / "results.csv").read_text().strip().splitlines()
        assert len(rows) == 3  # a header and two epochs
        assert abs(tuned.pruning.macs - 0.5) < 0.01

    def test_controls_are_yolos_too(self, dense):
        pictures = torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
        found = rp_yolo.search(dense, pictures, 0.5, strategy="random", candidates=1)
        for control in found.result.controls.values():
            yolo = found.yolo(control, recovery="none")
            selection = yolo.pruning.selection
            with torch.no_grad():
                rp.verify(dense.model, yolo.model, found.space, selection, found.example)


class TestFiles:
    def test_ours_loads_in_a_fresh_process(self, small, folder):
        path = rp_yolo.save(small, folder / "small.safetensors")
        script = (
            "import json, sys, torch\n"
            "torch.set_num_threads(1)\n"
            "from randprune.integrations import ultralytics as rp_yolo\n"
            "yolo = rp_yolo.load(sys.argv[1])\n"
            "generator = torch.Generator().manual_seed(1)\n"
            f"picture = torch.rand(1, 3, {SIZE}, {SIZE}, generator=generator)\n"
            "with torch.no_grad(): found = yolo.model(picture)[0]\n"
            "print(json.dumps([found.double().tolist(), yolo.names, yolo.pruning.macs]))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found, names, macs = json.loads(done.stdout.splitlines()[-1])
        assert torch.equal(torch.tensor(found, dtype=torch.float64), output(small).double())
        assert names == {"0": "0", "1": "1"}
        assert macs == small.pruning.macs

    def test_theirs_loads_where_randprune_is_not_installed(self, small, folder):
        small.save(folder / "small.pt")
        script = (
            "import sys, torch\n"
            "sys.modules['randprune'] = None  # importing it fails\n"
            "found = torch.load(sys.argv[1], weights_only=False)['model']\n"
            "print(sum(p.numel() for p in found.parameters()))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder / "small.pt")],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert int(done.stdout.split()[-1]) == sum(p.numel() for p in small.model.parameters())
        assert widths(YOLO(folder / "small.pt")) == widths(small)

    def test_onnx_gives_the_same(self, small, folder):
        onnxruntime = pytest.importorskip("onnxruntime")
        copy = rp_yolo.load(rp_yolo.save(small, folder / "export.safetensors"))
        path = copy.export(
            format="onnx", imgsz=SIZE, simplify=False, device="cpu", project=str(folder / "runs")
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        picture = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
        (found,) = session.run(None, {session.get_inputs()[0].name: picture.numpy()})
        wanted = output(small)
        assert float((torch.from_numpy(found) - wanted).abs().max() / wanted.abs().max()) < 1e-4

    def test_a_dense_yolo_may_be_saved(self, dense, folder):
        path = rp_yolo.save(dense, folder / "dense.safetensors")
        again = rp_yolo.load(path)
        assert not isinstance(again, rp_yolo.PrunedYOLO)
        assert torch.equal(output(again), output(dense))


class TestRefusals:
    def test_what_is_no_yolo_or_fused(self, small, folder):
        with pytest.raises(rp.InvalidInputError, match="must be a YOLO with a PyTorch network"):
            rp_yolo.prune(small.model, "data.yaml")
        fused = rp_yolo.load(rp_yolo.save(small, folder / "fused.safetensors"))
        fused.fuse()
        with pytest.raises(rp.InvalidInputError, match="The network is fused"):
            rp_yolo.prune(fused, "data.yaml")
        with pytest.raises(rp.InvalidInputError, match="The network is fused"):
            rp_yolo.save(fused, folder / "refused.safetensors")

    def test_other_classes(self, small, folder):
        text = (folder / "data.yaml").read_text() + "  2: third\n"
        (folder / "three.yaml").write_text(text)
        given = {**training(folder, "refused"), "data": str(folder / "three.yaml")}
        with pytest.raises(rp.InvalidInputError, match="has 2 classes, the data 3"):
            rp_yolo._wrapped(small, small.model, small.pruning).train(**given)

    @pytest.mark.parametrize("device", ["0,1", [0, 1]])
    def test_several_devices(self, small, device):
        with pytest.raises(rp.InvalidInputError, match="trains on one device"):
            small.train(data="data.yaml", device=device)

    @pytest.mark.parametrize("finetune", [-1, 1.5, True, "ten"])
    def test_wrong_finetune(self, dense, finetune):
        with pytest.raises(rp.InvalidInputError, match="'finetune' parameter of prune"):
            rp_yolo.prune(dense, "data.yaml", finetune=finetune)

    def test_training_needs_labels(self, dense):
        with pytest.raises(rp.InvalidInputError, match="needs labelled data"):
            rp_yolo.prune(dense, torch.rand(2, 3, SIZE, SIZE), finetune=3)

    def test_data_that_is_not_there(self, dense, tmp_path):
        with pytest.raises(rp.DataError, match="cannot be used"):
            rp_yolo.prune(dense, str(tmp_path / "nowhere.yaml"), imgsz=SIZE)

    def test_files_that_are_no_yolo(self, tmp_path):
        net = nn.Sequential(nn.Conv2d(3, 4, 3))
        rp.save(net, tmp_path / "other.safetensors")
        with pytest.raises(rp.ArtifactError, match="holds no YOLO"):
            rp_yolo.load(tmp_path / "other.safetensors")
        with pytest.raises(rp.ArtifactError, match="does not exist"):
            rp_yolo.load(tmp_path / "missing.pt")
