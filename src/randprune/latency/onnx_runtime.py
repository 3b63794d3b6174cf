"""ONNX Runtime on the CPU: networks are exported, kernels are timed by its own profiler."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from randprune.cost import FloatArray
from randprune.export import require_extra, tensors_in, write_network
from randprune.latency.onnx_operators import (
    ACTIVATIONS,
    fastest_of,
    inputs_of,
    model_of,
    portions,
)
from randprune.latency.operators import Call
from randprune.latency.runtime import Runner, runtimes

_RUNS = 6


class OnnxRuntime:
    """ONNX Runtime, CPU provider, all graph optimisations."""

    name: ClassVar[str] = "onnxruntime"
    absorbs: ClassVar[frozenset[str]] = ACTIVATIONS | {
        "batch_norm",
        "_native_batch_norm_legit_no_training",
    }
    profiles: ClassVar[bool] = True

    def version(self) -> str:
        """Its version."""
        require_extra("The runtime 'onnxruntime'")
        import onnxruntime

        return str(onnxruntime.__version__)

    def prepare(self, network: nn.Module, inputs: tuple[Any, ...], threads: int) -> Runner:
        """The network, exported."""
        self.version()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            write_network(network, path, inputs)
            return OnnxFile(path.read_bytes(), threads, inputs)

    def operators_ms(self, calls: Sequence[Call], threads: int) -> FloatArray:
        """Of each layer the sum over its kernels of the fastest of eight runs."""
        found = [np.empty(0)]
        for part in portions(calls):
            kernels = _profiled(model_of(part), inputs_of(part), threads, _RUNS)
            found.append(fastest_of(kernels, len(part)))
        return np.concatenate(found)


runtimes.register("onnxruntime")(OnnxRuntime)


class OnnxFile:
    """An ONNX model that is ready to run.

    Args:
        model: the file's content.
        threads: of one operation.
        inputs: in the order of the model's inputs.
    """

    def __init__(self, model: bytes, threads: int, inputs: tuple[Any, ...]) -> None:
        self._model, self._threads = model, threads
        self._session = _session(model, threads)
        self._names = [slot.name for slot in self._session.get_inputs()]
        self._feed = self._fed(inputs)

    def outputs(self, inputs: tuple[Any, ...]) -> list[Tensor]:
        """What the model computes of other inputs, in the order of its outputs."""
        return [torch.from_numpy(y) for y in self._session.run(None, self._fed(inputs))]

    def _fed(self, inputs: tuple[Any, ...]) -> dict[str, Any]:
        arrays = [x.detach().cpu().numpy() for x in tensors_in(inputs)]
        return dict(zip(self._names, arrays, strict=True))

    def clock(self, loops: int) -> float:
        """Milliseconds a batch."""
        start = time.perf_counter()
        for _ in range(loops):
            self._session.run(None, self._feed)
        return 1000.0 * (time.perf_counter() - start) / loops

    def fastest(self, runs: int) -> float:
        """The sum over all kernels of each one's fastest run, in milliseconds."""
        least: dict[str, float] = {}
        for name, spent in _profiled(self._model, self._feed, self._threads, runs):
            least[name] = min(spent, least.get(name, spent))
        return sum(least.values())


def _session(model: bytes, threads: int, profile: str = "") -> Any:
    import onnxruntime  # an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _profiled(
    model: bytes, feed: dict[str, Any], threads: int, runs: int
) -> list[tuple[str, float]]:
    """Kernels by name, with the milliseconds of each of their runs; the first run is left out."""
    with tempfile.TemporaryDirectory() as folder:
        session = _session(model, threads, str(Path(folder) / "profile"))
        for _ in range(runs + 1):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ending = "_kernel_time"
    seen: set[str] = set()
    found: list[tuple[str, float]] = []
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(ending):
            if name in seen:
                found.append((name.removesuffix(ending), event["dur"] / 1000.0))
            seen.add(name)
    return found
