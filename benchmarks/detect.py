"""A detector of blood cells, pruned to half of its MACs: their trainer, our search and repair.

    python benchmarks/detect.py run --data ../shared/data --work runs/detect
    python benchmarks/detect.py page                 # docs/results/detect.md from the record

Needs ultralytics (AGPL-3.0) and torch-pruning, which are no dependencies of randprune:
`pip install ultralytics==8.4.190 torch-pruning==1.6.1`. yolov8n is trained from random weights on
the training images of BCCD by ultralytics' own trainer, pruned, and fine-tuned by the same trainer.
All networks get the same fine-tuning: the dense one too, since more epochs help it as well. Boxes
of the test images are read by `val` alone. Each finished step is an entry of the record, and is not
made again: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

os.environ["YOLO_OFFLINE"] = "true"

from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.modules import Bottleneck, C2f, Conv, Detect

from randprune.integrations import ultralytics as rp_yolo

RECORD = Path("docs/results/detect/bccd.json")
PAGE = Path("docs/results/detect.md")
NAMES = ["Platelets", "RBC", "WBC"]
SIZE, EPOCHS, TUNING, CANDIDATES = 320, 60, 20, 40
RECIPE: dict[str, Any] = {
    "imgsz": SIZE,
    "batch": 16,
    "workers": 0,
    "cache": "ram",
    "device": "cpu",
    "seed": 0,
    "deterministic": True,
    "val": False,
    "patience": 0,
    "plots": False,
    "amp": False,
    "exist_ok": True,
    "verbose": False,
}


class Study:
    """The folder of the run, and what is recorded so far."""

    def __init__(self, data: Path, work: Path) -> None:
        self.work = work.resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.yaml = str(layout(data, self.work / "data"))
        self.found: dict[str, Any] = {}
        if RECORD.exists():
            self.found = json.loads(RECORD.read_text(encoding="utf-8"))

    def step(self, name: str, make: Callable[[], Any]) -> Any:
        """What the record says of the step, which is made where it says nothing."""
        if name not in self.found:
            begun = time.process_time()
            value = make()
            self.found[name] = value
            self.found.setdefault("seconds", {})[name] = round(time.process_time() - begun, 1)
            RECORD.parent.mkdir(parents=True, exist_ok=True)
            RECORD.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
            print(name, value, flush=True)
        return self.found[name]

    def file(self, name: str) -> Path:
        return self.work / f"{name}.safetensors"

    def scores(self, yolo: Any) -> dict[str, float]:
        """What ultralytics' `val` says on the test images, and the size."""
        copied = copy.deepcopy(yolo.model).float()
        found = yolo.val(
            data=self.yaml, split="test", imgsz=SIZE, batch=16, workers=0, device="cpu",
            plots=False, verbose=False, project=str(self.work / "val"), exist_ok=True,
        )  # fmt: skip
        box = found.box
        return {"map50": float(box.map50), "map50_95": float(box.map), **size(copied)}


def layout(source: Path, folder: Path) -> Path:
    """The images and boxes as ultralytics reads them; its description."""
    description = folder / "data.yaml"
    if description.exists():
        return description
    boxes = json.loads((source / "bccd" / "boxes.json").read_text(encoding="utf-8"))
    for name, image in boxes.items():
        for kind in ("images", "labels"):
            (folder / kind / image["split"]).mkdir(parents=True, exist_ok=True)
        picture = (source / "bccd" / "images" / f"{name}.jpg").resolve()
        (folder / "images" / image["split"] / f"{name}.jpg").symlink_to(picture)
        w, h = image["size"]
        lines = [
            f"{NAMES.index(c)} {(x0 + x1) / 2 / w:.6f} {(y0 + y1) / 2 / h:.6f} "
            f"{(x1 - x0) / w:.6f} {(y1 - y0) / h:.6f}"
            for c, x0, y0, x1, y1 in image["boxes"]
        ]
        (folder / "labels" / image["split"] / f"{name}.txt").write_text("\n".join(lines))
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(NAMES))
    description.write_text(
        f"path: {folder}\ntrain: images/train\nval: images/val\ntest: images/test\nnames:\n{names}"
    )
    return description


def size(network: nn.Module) -> dict[str, float]:
    """Multiply-adds of one image by torch's counter, and parameters."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, SIZE, SIZE))
    params = sum(p.numel() for p in network.parameters())
    return {"macs": counter.get_total_flops() / 2, "params": params}


def run(data: Path, work: Path) -> None:
    study = Study(data, work)
    weights = study.work / "dense" / "weights" / "last.pt"
    study.step("dense trained", lambda: train_dense(study, weights))
    study.step("dense", lambda: study.scores(YOLO(weights)))
    study.step("search", lambda: search(study, weights))
    for name in ("searched", "uniform", "random channels"):
        study.step(
            f"{name}, cut", lambda n=name: study.scores(rp_yolo.load(study.file(f"{n} cut")))
        )
        study.step(name, lambda n=name: study.scores(rp_yolo.load(study.file(n))))
    study.step("torch-pruning, as it is", lambda: torch_pruning_as_it_is(weights))
    study.step("torch-pruning", lambda: torch_pruning(study, weights))
    study.step("dense, tuned", lambda: tuned(study, "dense", YOLO(weights).model))
    for name in ("searched", "uniform", "random channels"):
        study.step(f"{name}, tuned", lambda n=name: tuned_pruned(study, n))
    network = study.work / "torch-pruning.pt"
    if network.exists():
        study.step("torch-pruning, tuned", lambda: tuned(study, "torch-pruning", read(network)))
    study.step("reload", lambda: reload(study))
    study.step("onnx", lambda: onnx(study))


def train_dense(study: Study, weights: Path) -> dict[str, Any]:
    if not weights.exists():
        YOLO("yolov8n.yaml").train(
            data=study.yaml, epochs=EPOCHS, project=str(study.work), name="dense", **RECIPE
        )
    return {"epochs": EPOCHS, **{k: v for k, v in RECIPE.items() if k != "exist_ok"}}


def search(study: Study, weights: Path) -> dict[str, Any]:
    """The search that `rp_yolo.prune` makes; its best network and the controls, as files."""
    begun = time.process_time()
    found = rp_yolo.search(YOLO(weights), study.yaml, 0.5, imgsz=SIZE, candidates=CANDIDATES)
    seconds = time.process_time() - begun
    networks = {
        "searched": found.result.best,
        "uniform": found.result.controls["uniform"],
        "random channels": found.result.controls["random_channels"],
    }
    for name, network in networks.items():
        rp_yolo.save(found.yolo(network, "none"), study.file(f"{name} cut"))
        rp_yolo.save(found.yolo(network), study.file(name))
    distances = {name: network.distance for name, network in networks.items()}
    return {"candidates": CANDIDATES, "processor_seconds": round(seconds, 1), "distance": distances}


def tuned_pruned(study: Study, name: str) -> dict[str, float]:
    """A pruned network after the recipe, by its own `train`."""
    yolo = rp_yolo.load(study.file(name))
    yolo.train(
        data=study.yaml, epochs=TUNING, project=str(study.work), name=f"{name} tuned", **RECIPE
    )
    trained = rp_yolo.load(study.work / f"{name} tuned" / "weights" / "last.pt")
    rp_yolo.save(trained, study.file(f"{name} tuned"))
    return study.scores(trained)


def tuned(study: Study, name: str, network: nn.Module) -> dict[str, float]:
    """Any network after the recipe: the trainer is handed the network instead of building one."""
    for parameter_name, parameter in network.named_parameters():
        parameter.requires_grad_(".dfl." not in parameter_name)

    class Trainer(DetectionTrainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            return network.float().train()

    arguments = {"data": study.yaml, "epochs": TUNING, "project": str(study.work), **RECIPE}
    trainer = Trainer(overrides={"model": "yolov8n.yaml", "name": f"{name} tuned", **arguments})
    trainer.train()
    return study.scores(YOLO(study.work / f"{name} tuned" / "weights" / "last.pt"))


def torch_pruning_as_it_is(weights: Path) -> dict[str, str]:
    """What Torch-Pruning says of the unmodified network."""
    try:
        magnitude_pruner(YOLO(weights).model.float(), 0.3).step()
    except Exception as error:  # whatever it is, it is the result
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {"error": f"{type(error).__name__}: {error}", "in": f"{where.name}"}
    return {"error": ""}


def torch_pruning(study: Study, weights: Path) -> dict[str, Any]:
    """Torch-Pruning on a network whose C2f blocks are rewritten for it, uniform, L2 of groups."""
    dense = YOLO(weights).model.float()
    target = size(copy.deepcopy(dense))["macs"] / 2
    low, high = 0.0, 0.9
    for _ in range(7):  # the ratio that leaves half of the MACs
        ratio = (low + high) / 2
        network = without_chunks(copy.deepcopy(dense))
        try:
            magnitude_pruner(network, ratio).step()
            macs = size(copy.deepcopy(network))["macs"]
        except Exception as error:  # whatever it is, it is the result
            return {"error": f"{type(error).__name__}: {error}"}
        low, high = (ratio, high) if macs > target else (low, ratio)
    torch.save(network, study.work / "torch-pruning.pt")
    yolo = YOLO(weights)
    yolo.model = network
    yolo.ckpt = {"model": network}
    return {"ratio": ratio, **study.scores(yolo)}


def magnitude_pruner(network: nn.Module, ratio: float) -> Any:
    import torch_pruning as tp

    for parameter in network.parameters():
        parameter.requires_grad_(True)
    network.train()
    ignored = [module for module in network.modules() if isinstance(module, Detect)]
    return tp.pruner.GroupNormPruner(
        network,
        torch.zeros(1, 3, SIZE, SIZE),
        importance=tp.importance.GroupMagnitudeImportance(),
        pruning_ratio=ratio,
        ignored_layers=ignored,
    )


class SplitC2f(nn.Module):
    """A C2f whose first convolution is two, so that no tensor is cut in the middle."""

    def __init__(self, block: C2f) -> None:
        super().__init__()
        half = block.c
        self.first, self.second = (part(block.cv1, slice(half)), part(block.cv1, slice(half, None)))
        self.cv2, self.m = block.cv2, block.m
        self.i, self.f, self.type, self.np = block.i, block.f, block.type, block.np

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = [self.first(x), self.second(x)]
        for layer in self.m:
            found.append(layer(found[-1]))
        return self.cv2(torch.cat(found, 1))


def part(layer: Conv, rows: slice) -> Conv:
    """The convolution, norm and activation of some of its output channels."""
    count = len(range(layer.conv.out_channels)[rows])
    new = Conv(layer.conv.in_channels, count, 1, 1)
    new.bn.eps, new.bn.momentum = layer.bn.eps, layer.bn.momentum
    for ours, theirs in ((new.conv, layer.conv), (new.bn, layer.bn)):
        ours.load_state_dict({k: v[rows] if v.ndim else v for k, v in theirs.state_dict().items()})
    return new


def without_chunks(network: nn.Module) -> nn.Module:
    """The network with `SplitC2f` in place of every C2f; it computes the same."""
    example = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        before = network.eval()(example)[0]
    for place, block in enumerate(network.model):
        if isinstance(block, C2f):
            network.model[place] = SplitC2f(block)
    with torch.no_grad():
        after = network.eval()(example)[0]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-3)
    assert any(isinstance(module, Bottleneck) for module in network.modules())
    return network


def read(path: Path) -> nn.Module:
    network: nn.Module = torch.load(path, weights_only=False)
    return network


PREDICT = """
import sys, torch
from randprune.integrations import ultralytics as rp_yolo
torch.manual_seed(0)
pictures = torch.rand(4, 3, {size}, {size})
yolo = rp_yolo.load(sys.argv[1])
with torch.no_grad():
    torch.save(yolo.model.float().eval()(pictures)[0], sys.argv[2])
"""


def reload(study: Study) -> dict[str, float]:
    """Predictions of the fine-tuned network here and in two fresh processes, one a file."""
    trained = rp_yolo.load(study.work / "searched tuned" / "weights" / "last.pt")
    torch.manual_seed(0)
    with torch.no_grad():
        here = trained.model.float().eval()(torch.rand(4, 3, SIZE, SIZE))[0]
    differences = {}
    trained.save(study.work / "again.pt")
    for file in (study.file("searched tuned"), study.work / "again.pt"):
        out = study.work / "predicted.pt"
        script = PREDICT.format(size=SIZE)
        subprocess.run([sys.executable, "-c", script, str(file), str(out)], check=True)
        there = torch.load(out)
        differences[file.suffix] = float((here - there).abs().max() / here.abs().max())
    return differences


def onnx(study: Study) -> dict[str, float]:
    """The exported network in ONNX Runtime against PyTorch."""
    import onnxruntime

    trained = rp_yolo.load(study.file("searched tuned"))
    pictures = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = copy.deepcopy(trained.model).float().eval()(pictures)[0]
    file = trained.export(format="onnx", imgsz=SIZE, simplify=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: pictures.numpy()})[0]
    difference = (torch.from_numpy(found) - expected).abs().max() / expected.abs().max()
    return {"relative_difference": float(difference)}


def page() -> str:
    """docs/results/detect.md."""
    found = json.loads(RECORD.read_text(encoding="utf-8"))
    dense = found["dense"]
    lines = [HEAD]
    for name in ("dense", "searched", "uniform", "random channels", "torch-pruning"):
        own = found.get(name, {})
        if "map50" not in own:
            continue
        cells = [f"{100 * own[key] / dense[key]:.1f} %" for key in ("macs", "params")]
        for stage in (f"{name}, cut", name, f"{name}, tuned"):
            scores = found.get(stage)
            if name == "torch-pruning" and stage == name:
                scores = None
            elif name == "torch-pruning" and stage.endswith("cut"):
                scores = own
            cells.append(f"{scores['map50']:.3f} / {scores['map50_95']:.3f}" if scores else "")
        title = "torch-pruning, C2f rewritten" if name == "torch-pruning" else name
        lines.append(f"| {title} | {' | '.join(cells)} |")
    as_it_is = found["torch-pruning, as it is"]["error"] or "no error"
    lines += ["", f"Torch-Pruning 1.6.1 on the unmodified network: `{as_it_is}`."]
    if error := found["torch-pruning"].get("error"):
        lines += [f"With every C2f rewritten as two convolutions: `{error}`."]
    reloaded = ", ".join(f"{suffix} {value:.1e}" for suffix, value in found["reload"].items())
    lines += [
        "The fine-tuned searched network in a fresh process, largest relative difference: "
        f"{reloaded}.",
        f"In ONNX Runtime: {found['onnx']['relative_difference']:.1e}.",
        f"The search of {found['search']['candidates']} candidates took "
        f"{found['search']['processor_seconds'] / 60:.1f} minutes of one core.",
    ]
    return "\n".join(lines) + "\n"


HEAD = f"""# A detector, pruned

yolov8n, trained here from random weights on the 205 training images of BCCD (blood cells) at
{SIZE} pixels for {EPOCHS} epochs by ultralytics' own trainer, then pruned to half of its MACs by
`randprune.integrations.ultralytics`, and fine-tuned for {TUNING} epochs by the same trainer, the
dense network too. mAP50 / mAP50-95 of the 72 test images, one seed: there is no interval, so that
small differences say nothing.

```
python benchmarks/detect.py run --data ../shared/data --work runs/detect
python benchmarks/detect.py page
```

| network | MACs | params | only cut | repaired, no training | fine-tuned |
|---|--:|--:|--:|--:|--:|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=["run", "page"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/detect"))
    given = parser.parse_args()
    if given.step == "run":
        run(given.data, given.work)
    else:
        PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
