"""Whole numbers of 8 bits: nearly the same outputs, smaller files, and what cannot be done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from randprune.errors import DataError, UnsupportedModelError
from randprune.export import export
from randprune.jobs.arms import four_arms
from randprune.quantize import quantize
from randprune.tasks import Classification
from randprune.zoo import build_model, load_data

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")

IMAGES = torch.zeros(1, 1, 8, 8)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("randprune:digits_cnn").eval()


def run(path: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


def test_outputs_are_nearly_those_in_float32(tmp_path: Path) -> None:
    plain, small = tmp_path / "a.onnx", tmp_path / "a.int8.onnx"
    export(network(), plain, IMAGES)
    images = load_data("digits").calibration.subset(torch.arange(100).numpy())
    batches = [[x] for x, _ in images.batches(50)]
    quantize(plain, small, batches)
    assert small.stat().st_size < plain.stat().st_size
    (x,) = batches[0]
    exact, whole = run(plain, x), run(small, x)
    assert not torch.equal(exact, whole)
    assert float((exact - whole).square().mean() / exact.var()) < 0.01


def test_what_cannot_be_quantised(tmp_path: Path, monkeypatch: Any) -> None:
    plain = tmp_path / "a.onnx"
    export(network(), plain, IMAGES)
    with pytest.raises(DataError, match="No calibration images"):
        quantize(plain, tmp_path / "b.onnx", [])

    def broken(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no kernel\nfor this")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", broken)
    with pytest.raises(UnsupportedModelError, match=r"cannot quantise a\.onnx: no kernel\."):
        quantize(plain, tmp_path / "b.onnx", [[torch.zeros(2, 1, 8, 8)]])
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]


def test_four_arms_are_judged_without_the_test_set(tmp_path: Path) -> None:
    data = load_data("digits", calibration=100, search=120)
    dense, small = network(), network(1)
    kept = tmp_path / "small.int8.onnx"
    arms = four_arms(dense, small, data, Classification(), (IMAGES,), keep=kept)
    assert [arm.name for arm in arms] == ["dense", "dense, int8", "pruned", "pruned, int8"]
    assert arms[0].speedup == 1.0
    assert all(arm.milliseconds > 0 and arm.quality.samples == 120 for arm in arms)
    assert arms[3].size_bytes == kept.stat().st_size
    right = [0, 0]
    with torch.no_grad():
        for x, y in data.search.batches(60):
            for i, net in enumerate((dense, small)):
                right[i] += int((net(x).argmax(1) == y).sum())
    assert [arms[0].quality.correct, arms[2].quality.correct] == right
    assert data.test_opened == 0
