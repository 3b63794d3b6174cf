"""OpenVINO on the CPU: reads what ONNX Runtime reads, and times its own kernels."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from randprune.cost import FloatArray
from randprune.export import require_extra, require_openvino, tensors_in, write_network
from randprune.latency.onnx_operators import (
    ACTIVATIONS,
    fastest_of,
    inputs_of,
    model_of,
    portions,
)
from randprune.latency.operators import Call
from randprune.latency.runtime import Runner, runtimes

_RUNS = 8
# Kernels are counted in whole microseconds: none takes no time at all.
_GRAIN_MS = 0.0005


class OpenVino:
    """OpenVINO, CPU plug-in, in float32, tuned for latency.

    Known shortcomings: counting kernels slows networks down by half here, so that networks are
    timed as a whole; kernels are timed for single layers alone.
    """

    name: ClassVar[str] = "openvino"
    absorbs: ClassVar[frozenset[str]] = ACTIVATIONS | {
        *("batch_norm", "_native_batch_norm_legit_no_training"),
        *("silu", "hardswish", "gelu", "elu", "mish"),
    }
    profiles: ClassVar[bool] = False

    def version(self) -> str:
        """Its version."""
        require_openvino("The runtime 'openvino'")
        require_extra("The runtime 'openvino'")
        import openvino

        return str(openvino.__version__).partition("-")[0]

    def prepare(self, network: nn.Module, inputs: tuple[Any, ...], threads: int) -> Runner:
        """The network, exported as ONNX and compiled."""
        self.version()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            write_network(network, path, inputs)
            arrays = [x.detach().cpu().numpy() for x in tensors_in(inputs)]
            return OpenVinoFile(path.read_bytes(), threads, arrays)

    def operators_ms(self, calls: Sequence[Call], threads: int) -> FloatArray:
        """Of each layer the sum over its kernels of the fastest of eight runs."""
        found = [np.empty(0)]
        for part in portions(calls):
            plain = [_without_activation(call) for call in part]
            arrays = list(inputs_of(plain).values())
            kernels = _kernels(model_of(plain), arrays, threads)
            found.append(np.maximum(fastest_of(kernels, len(part)), _GRAIN_MS))
        return np.concatenate(found)


runtimes.register("openvino")(OpenVino)


class OpenVinoFile:
    """An ONNX model that OpenVINO has compiled.

    Args:
        model: the file's content.
        threads: of the CPU.
        arrays: in the order of the model's inputs.
    """

    def __init__(self, model: bytes, threads: int, arrays: Sequence[Any]) -> None:
        self._arrays = list(arrays)
        self._request = _request(model, threads, {})

    def clock(self, loops: int) -> float:
        """Milliseconds a batch."""
        start = time.perf_counter()
        for _ in range(loops):
            self._request.infer(self._arrays)
        return 1000.0 * (time.perf_counter() - start) / loops

    def fastest(self, runs: int) -> float:
        """The fastest batch, in milliseconds."""
        self.clock(1)
        return min(self.clock(1) for _ in range(runs))


def _request(model: bytes, threads: int, more: dict[str, Any]) -> Any:
    import openvino  # an extra

    core = openvino.Core()
    options: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        **more,
    }
    return core.compile_model(core.read_model(model), "CPU", options).create_infer_request()


def _kernels(model: bytes, arrays: Sequence[Any], threads: int) -> list[tuple[str, float]]:
    """Kernels by name, with the milliseconds of each of their runs; the first is left out."""
    request = _request(model, threads, {"PERF_COUNT": True})
    request.infer(list(arrays))
    found: list[tuple[str, float]] = []
    for _ in range(_RUNS):
        request.infer(list(arrays))
        for part in request.profiling_info:
            if (spent := 1000.0 * part.real_time.total_seconds()) > 0.0:
                found.append((part.node_name, spent))
    return found


def _without_activation(call: Call) -> Call:
    """The same layer without what is computed within it: that hardly shows here."""
    return replace(call, operator=replace(call.operator, activation=""))
