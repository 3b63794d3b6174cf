"""Hand a network over to other runtimes, and prove that it computes the same there.

export(small, "small.onnx", torch.zeros(1, 3, 32, 32))      # needs: pip install 'randprune[export]'
export(small, "small.pt2", torch.zeros(1, 3, 32, 32))       # torch.export, no extra needed
export(small, "small.xml", torch.zeros(1, 3, 32, 32))       # OpenVINO: 'randprune[export,latency]'

A file is kept only if its outputs agree with the network's on random inputs.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from randprune.atomic import write_file
from randprune.errors import InvalidInputError, UnsupportedModelError, VerificationError
from randprune.graph.program import EXPORTING, Inputs, as_inputs, in_mode, private_copy

__all__ = ["Exported", "export"]

Format = Literal["onnx", "pt2", "openvino"]

_FORMATS: dict[str, Format] = {".onnx": "onnx", ".pt2": "pt2", ".xml": "openvino"}
_EXTRA = ("onnx", "onnxscript", "onnxruntime")
# Inputs of this many images check a file whose batch size is free: not the size it was made with.
_OTHER_BATCH = 3
_BATCH_AXIS = "batch"
# They remark on their own deprecations and on missing optional packages.
_EXPORTERS = ("torch.onnx", "torch.export", "onnxscript")


@dataclass(frozen=True, slots=True)
class Exported:
    """A file written by `export`.

    Attributes:
        path: the file.
        format: "onnx", "pt2" or "openvino".
        size_bytes: of the file; of an OpenVINO model with that of its weights, PATH.bin.
        batch: the batch size it takes; None where it takes any.
        difference: `max |difference| / max |output|` between the file's and the network's outputs.
    """

    path: Path
    format: Format
    size_bytes: int
    batch: int | None
    difference: float


def export(
    network: nn.Module,
    path: str | os.PathLike[str],
    example_inputs: Inputs,
    *,
    any_batch: bool = True,
    tolerance: float = 1e-4,
    seed: int = 0,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Exported:
    """Write a network for another runtime; the suffix chooses it: .onnx, .pt2 (torch.export) or
    .xml (OpenVINO, whose weights lie beside it in a .bin file).

    Args:
        network: any network on the CPU; left untouched, exported in evaluation mode.
        path: the file, replaced if it exists.
        example_inputs: one tensor, or a tuple of the positional inputs; their values do not matter.
        any_batch: leave the first axis of every input free, called "batch" in an ONNX file;
            otherwise it stays as in the example.
        tolerance: largest allowed `max |difference| / max |output|` on random inputs.
        seed: draws these inputs.
        opset: of an ONNX file; default: the exporter's.
        metadata: what an ONNX file says of itself, texts by key.

    Raises:
        InvalidInputError: an unknown suffix, an opset or metadata for another file than ONNX, or
            the packages of the extra are missing.
        UnsupportedModelError: the network cannot be exported.
        VerificationError: the file computes something else; it is not kept.
        StorageError: the file cannot be written.
    """
    target = Path(path)
    form = _FORMATS.get(target.suffix)
    if form is None:
        raise InvalidInputError(
            "The file name must end in .onnx, .pt2 or .xml, which chooses the format. "
            f"Got {target.name!r} instead."
        )
    if form == "onnx":
        require_extra("Writing ONNX")
    elif form == "openvino":
        require_extra("Writing an OpenVINO model")
        require_openvino("Writing an OpenVINO model")
    if form != "onnx" and (opset is not None or metadata):
        raise InvalidInputError(
            f"An opset and metadata are parts of ONNX files. Got them for {target.name!r}."
        )
    inputs = as_inputs(example_inputs)
    frozen = in_mode(private_copy(network))
    with EXPORTING, quiet(*_EXPORTERS), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / target.name
        program = _program(frozen, inputs, any_batch)
        if form == "pt2":
            torch.export.save(program, draft)
        elif form == "openvino":
            _write_openvino(program, draft)
        else:
            _write_onnx(program, draft, opset)
            _describe(draft, metadata or {})
        sizes = [_OTHER_BATCH, None] if any_batch else [None]
        found = [_difference(frozen, form, draft, inputs, seed, size) for size in sizes]
        difference = float(torch.tensor(found).max())  # NaN where one of them is
        if not difference <= tolerance:
            raise VerificationError(
                f"The exported network differs from the original: relative difference "
                f"{difference:.2e} (tolerance {tolerance:.0e}). The file was not written."
            )
        # What it refers to comes first: nobody reads a model whose weights are not there yet.
        parts = sorted(draft.parent.iterdir(), key=lambda part: part == draft)
        written = [write_file(target.parent / part.name, part.read_bytes()) for part in parts]
    batch = None if any_batch else int(tensors_in(inputs)[0].shape[0])
    return Exported(target, form, sum(p.stat().st_size for p in written), batch, difference)


def require_extra(what: str) -> None:
    """Raise an InvalidInputError where packages are missing that `what` needs."""
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise InvalidInputError(
            f"{what} needs {', '.join(missing)}: pip install 'randprune[export]'. "
            "torch itself (a .pt2 file, the runtime 'torch') needs no extra."
        )


def require_openvino(what: str) -> None:
    """Raise an InvalidInputError where OpenVINO is missing, which `what` needs."""
    if find_spec("openvino") is None:
        raise InvalidInputError(
            f"{what} needs OpenVINO, which is not installed: pip install 'randprune[latency]'."
        )


def write_network(
    network: nn.Module, path: Path, example_inputs: Inputs, *, any_batch: bool = False
) -> None:
    """Write a network as ONNX without comparing outputs, as `export` does.

    Raises:
        UnsupportedModelError: it cannot be exported.
    """
    frozen = in_mode(private_copy(network))
    with EXPORTING, quiet(*_EXPORTERS), torch.no_grad():
        _write_onnx(_program(frozen, as_inputs(example_inputs), any_batch), path)


def _program(network: nn.Module, inputs: tuple[Any, ...], any_batch: bool) -> ExportedProgram:
    shapes: Any = None
    if any_batch:
        # Sizes of 0 and 1 would be taken for constants.
        inputs = _resized(inputs, 2)
        shapes = tuple({0: Dim.DYNAMIC} if isinstance(x, torch.Tensor) else None for x in inputs)
    try:
        program = torch.export.export(network, inputs, dynamic_shapes=shapes)
    except Exception as error:
        advice = (
            "A batch size may be baked into its forward: export for one size (any_batch=False, on "
            "the command line --batch 1)."
            if any_batch
            else "Its forward must not branch on tensor values."
        )
        raise UnsupportedModelError(
            f"{type(network).__name__} cannot be exported: {first_line(error)}. {advice}"
        ) from error
    for node in program.graph.nodes:
        # Where the code lies on this machine is nobody's business.
        node.meta.pop("stack_trace", None)
    return program


def _write_onnx(program: ExportedProgram, path: Path, opset: int | None = None) -> None:
    try:
        onnx = torch.onnx.export(
            program, dynamo=True, verbose=False, external_data=False, opset_version=opset
        )
    except Exception as error:
        raise UnsupportedModelError(
            f"The network cannot be written as ONNX: {first_line(error)}. "
            "Write a .pt2 file, or rewrite the operation that is named."
        ) from error
    assert onnx is not None
    for node in onnx.model.graph.all_nodes():
        for key in [key for key in node.metadata_props if "stack_trace" in key]:
            del node.metadata_props[key]
    onnx.save(path, external_data=False)


def _write_openvino(program: ExportedProgram, path: Path) -> None:
    import openvino  # an extra

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "network.onnx"
        _write_onnx(program, plain)
        try:
            model = openvino.convert_model(plain)
        except Exception as error:
            raise UnsupportedModelError(
                f"OpenVINO cannot read the network: {first_line(error)}. "
                "Write an .onnx or .pt2 file."
            ) from error
        openvino.save_model(model, path, compress_to_fp16=False)


def _describe(path: Path, metadata: Mapping[str, str]) -> None:
    """Name the free axis of an ONNX file, and say in it what the file is."""
    import onnx  # an extra

    model = onnx.load(path)
    free = {v.type.tensor_type.shape.dim[0].dim_param for v in model.graph.input}
    every = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    for value in every:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param and axis.dim_param in free:
                axis.dim_param = _BATCH_AXIS
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


def _difference(
    network: nn.Module,
    form: Format,
    path: Path,
    inputs: tuple[Any, ...],
    seed: int,
    batch: int | None,
) -> float:
    """Largest relative difference over the outputs, for inputs of this batch size."""
    generator = torch.Generator().manual_seed(seed)
    drawn = tuple(
        torch.randn(x.shape, generator=generator).to(x.dtype)
        if isinstance(x, torch.Tensor) and x.is_floating_point()
        else x
        for x in (inputs if batch is None else _resized(inputs, batch))
    )
    expected = tensors_in(network(*drawn))
    got = _RUN[form](path, drawn)
    if [y.shape for y in got] != [y.shape for y in expected]:
        raise VerificationError(
            f"The exported network gives outputs of shapes {[tuple(y.shape) for y in got]}, the "
            f"original {[tuple(y.shape) for y in expected]}. The file was not written."
        )
    tiny = torch.finfo(torch.float32).tiny
    shares = [
        (a - b).abs().max() / b.abs().max().clamp(min=tiny)
        for a, b in zip(got, expected, strict=True)
    ]
    return float(torch.stack(shares).max())


def _run_pt2(path: Path, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    return tensors_in(torch.export.load(path).module()(*inputs))


def _run_onnx(path: Path, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    import onnxruntime  # an extra

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [slot.name for slot in session.get_inputs()]
    feed = {name: x.numpy() for name, x in zip(names, tensors_in(inputs), strict=True)}
    return [torch.from_numpy(y) for y in session.run(None, feed)]


def _run_openvino(path: Path, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    import openvino  # an extra

    # Float32 throughout: the plug-in would take bfloat16 where the hardware has it.
    exactly = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", exactly)
    found = compiled([x.numpy() for x in tensors_in(inputs)])
    return [torch.from_numpy(found[slot]) for slot in compiled.outputs]


_RUN = {"onnx": _run_onnx, "pt2": _run_pt2, "openvino": _run_openvino}


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors in nested outputs, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    nested = isinstance(value, dict | Sequence) and not isinstance(value, str)
    return [tensor for part in parts for tensor in tensors_in(part)] if nested else []


def _resized(inputs: tuple[Any, ...], batch: int) -> tuple[Any, ...]:
    """The inputs with another batch size."""
    return tuple(
        x[:1].expand(batch, *x.shape[1:]).contiguous() if isinstance(x, torch.Tensor) else x
        for x in inputs
    )


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Without warnings, and without what loggers of these names say below an error."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """What an error says first, 300 characters of it at most."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
