"""Time: runtimes that networks run in, how they are timed, and latency as a cost of widths."""

from __future__ import annotations

from randprune.latency import onnx_runtime as _onnx, openvino_runtime as _openvino
from randprune.latency.build import latency_cost, paired_ms
from randprune.latency.cost import LatencyCost, Setting
from randprune.latency.runtime import Runner, Runtime, runtimes
from randprune.latency.timing import (
    PairedSpeedup,
    Timing,
    measure_latency,
    median_interval,
    speedup,
)

__all__ = [
    "LatencyCost",
    "PairedSpeedup",
    "Runner",
    "Runtime",
    "Setting",
    "Timing",
    "latency_cost",
    "measure_latency",
    "median_interval",
    "paired_ms",
    "runtimes",
    "speedup",
]

# Registered by being imported; their packages are imported when they are used.
del _onnx, _openvino
