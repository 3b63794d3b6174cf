"""Export: the file computes what the network computes, in the other runtime, or is not written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import randprune as rp
from randprune.export import _RUN, export
from randprune.zoo.models import build_model

IMAGES = torch.zeros(1, 1, 8, 8)


@pytest.fixture
def small() -> nn.Module:
    """The digits network with about half of its channels, in evaluation mode."""
    torch.manual_seed(0)
    model = build_model("randprune:digits_cnn").eval()
    space = rp.trace(model, IMAGES)
    widths = (space.widths + 1) // 2
    return rp.cut(model, space, rp.select(space, rp.score(model, space, "l2"), widths))


def run_pt2(path: Path, images: Tensor) -> Tensor:
    outputs: Tensor = torch.export.load(path).module()(images)
    return outputs


def run_onnx(path: Path, images: Tensor) -> Tensor:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.export.load about its own pytrees
@pytest.mark.parametrize(("name", "runtime"), [("a.pt2", run_pt2), ("a.onnx", run_onnx)])
def test_the_file_takes_any_batch_and_agrees(
    small: nn.Module, tmp_path: Path, name: str, runtime: Any
) -> None:
    if name.endswith("onnx"):
        pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    made = export(small, tmp_path / name, IMAGES)
    assert made.path == tmp_path / name
    assert made.size_bytes == made.path.stat().st_size
    assert made.batch is None
    assert made.difference < 1e-5
    for count in (1, 2, 7):
        images = torch.randn(count, 1, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(runtime(made.path, images), small(images))
    # The file tells nothing about the machine it was made on.
    assert str(Path(rp.__file__).parent).encode() not in made.path.read_bytes()


def test_an_openvino_model_has_its_weights_beside_it(small: nn.Module, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="the extra 'latency' is not installed")
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    made = export(small, tmp_path / "a.xml", IMAGES)
    weights = tmp_path / "a.bin"
    assert made.format == "openvino"
    assert made.size_bytes == made.path.stat().st_size + weights.stat().st_size
    assert made.difference < 1e-5
    compiled = openvino.Core().compile_model(str(made.path), "CPU")
    for count in (1, 3):
        images = torch.randn(count, 1, 8, 8)
        found = torch.from_numpy(compiled([images.numpy()])[0])
        with torch.no_grad():
            assert float((found - small(images)).abs().max()) < 0.05 * float(found.abs().max())


def test_the_network_stays_as_it_was(small: nn.Module, tmp_path: Path) -> None:
    small.train()
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    export(small, tmp_path / "a.pt2", IMAGES)
    assert all(module.training for module in small.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


class FixedBatch(nn.Module):
    """A forward that needs batches of two."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_baked_batch_size_is_refused_with_the_way_out(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 4, 4)
    with pytest.raises(rp.UnsupportedModelError, match=r"any_batch=False"):
        export(FixedBatch(), tmp_path / "a.pt2", images)
    assert list(tmp_path.iterdir()) == []
    made = export(FixedBatch(), tmp_path / "a.pt2", images, any_batch=False)
    assert made.batch == 2
    assert made.difference == 0


def test_a_file_that_computes_something_else_is_not_kept(
    small: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.pt2").write_bytes(b"an older file")

    def computes(columns: int) -> Any:
        return lambda path, inputs: [torch.zeros(len(inputs[0]), columns)]

    monkeypatch.setitem(_RUN, "pt2", computes(10))
    with pytest.raises(rp.VerificationError, match="The exported network differs"):
        export(small, tmp_path / "a.pt2", IMAGES)
    monkeypatch.setitem(_RUN, "pt2", computes(9))
    with pytest.raises(rp.VerificationError, match="outputs of shapes"):
        export(small, tmp_path / "a.pt2", IMAGES)
    assert (tmp_path / "a.pt2").read_bytes() == b"an older file"


def test_unknown_suffixes_and_missing_extras_are_named(
    small: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        rp.InvalidInputError, match=r"must end in \.onnx, \.pt2 or \.xml.*'a\.tflite'"
    ):
        export(small, tmp_path / "a.tflite", IMAGES)
    monkeypatch.setattr("randprune.export.find_spec", lambda name: None)
    with pytest.raises(rp.InvalidInputError, match=r"pip install 'randprune\[export\]'"):
        export(small, tmp_path / "a.onnx", IMAGES)
    monkeypatch.setattr("randprune.export.find_spec", lambda name: name != "openvino" or None)
    with pytest.raises(rp.InvalidInputError, match=r"pip install 'randprune\[latency\]'"):
        export(small, tmp_path / "a.xml", IMAGES)


def test_an_onnx_file_names_its_axes_and_says_what_it_is(small: nn.Module, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
    path = tmp_path / "a.onnx"
    export(small, path, IMAGES, opset=19, metadata={"network": "digits", "budget": "0.5"})
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {p.key: p.value for p in model.metadata_props} == {"network": "digits", "budget": "0.5"}
    assert [s.version for s in model.opset_import if s.domain == ""] == [19]
    export(small, path, IMAGES, any_batch=False)
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape
    assert (shape.dim[0].dim_value, shape.dim[0].dim_param) == (1, "")
    with pytest.raises(rp.InvalidInputError, match="parts of ONNX files"):
        export(small, tmp_path / "a.pt2", IMAGES, opset=19)
