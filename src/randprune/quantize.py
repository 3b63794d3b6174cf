"""Whole numbers of 8 bits in place of float32, after training, for ONNX Runtime.

quantize(Path("small.onnx"), Path("small.int8.onnx"), batches)     # needs 'randprune[export]'

Weights are quantised channel by channel, symmetrically, activations with one scale a tensor between
the least and the greatest value that calibration inputs gave (Jacob et al., "Quantization and
training of neural networks for efficient integer-arithmetic-only inference", CVPR 2018; the work is
ONNX Runtime's). Unsigned activations and signed weights are what its kernels on x86 are made for.

Known shortcomings: no training; a few outliers stretch the range of a tensor; operators that the
runtime has no such kernel for stay in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from randprune.atomic import write_file
from randprune.errors import DataError, UnsupportedModelError
from randprune.export import first_line, quiet, require_extra


def quantize(source: Path, target: Path, batches: Iterable[Sequence[Tensor]]) -> None:
    """Write the quantised form of an ONNX file.

    Args:
        source: the file in float32.
        target: replaced if it exists.
        batches: calibration inputs, tensors in the order of the file's inputs; a few hundred
            samples.

    Raises:
        InvalidInputError: the packages of the extra are missing.
        DataError: no calibration inputs.
        UnsupportedModelError: ONNX Runtime cannot quantise the file.
    """
    require_extra("Quantising")
    import onnxruntime
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    names = [slot.name for slot in session.get_inputs()]
    reader = _Reader(names, batches)
    if not reader.batches:
        raise DataError("No calibration images: the data is empty.")
    # The runtime remarks on its own steps, by the root logger.
    with quiet(""), tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        draft = Path(folder) / target.name
        try:
            quant_pre_process(source, plain)
            quantize_static(
                plain,
                draft,
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except Exception as error:
            raise UnsupportedModelError(
                f"ONNX Runtime cannot quantise {source.name}: {first_line(error)}. "
                "The file in float32 stays."
            ) from error
        write_file(target, draft.read_bytes())


class _Reader:
    """What the runtime asks for calibration inputs, one after the other."""

    def __init__(self, names: Sequence[str], batches: Iterable[Sequence[Tensor]]) -> None:
        self.batches = [
            {name: x.detach().cpu().numpy() for name, x in zip(names, batch, strict=True)}
            for batch in batches
        ]
        self._left = iter(self.batches)

    def get_next(self) -> dict[str, Any] | None:
        """The next inputs by name; None behind the last."""
        return next(self._left, None)
