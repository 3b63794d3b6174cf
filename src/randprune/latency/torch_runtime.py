"""torch itself, as networks are (eager) or compiled by `torch.compile`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from randprune.cost import FloatArray
from randprune.errors import UnsupportedModelError
from randprune.evaluate.threads import using
from randprune.graph.program import in_mode, private_copy
from randprune.latency.operators import Call
from randprune.latency.runtime import Runner, runtimes

_RUNS = 5
# A convolution is repeated until it takes about this long, so that the clock's grain does not show.
_SAMPLE_MS = 0.3


class TorchRuntime:
    """Eager torch; images lie channels-first or channels-last, whatever is faster."""

    name: ClassVar[str] = "torch"
    absorbs: ClassVar[frozenset[str]] = frozenset()
    profiles: ClassVar[bool] = False

    def version(self) -> str:
        """torch's version."""
        return torch.__version__

    def prepare(self, network: nn.Module, inputs: tuple[Any, ...], threads: int) -> Runner:
        """The network in the faster memory order."""
        plain = TorchRunner(in_mode(private_copy(network)), inputs, threads)
        if not any(isinstance(x, Tensor) and x.ndim == 4 for x in inputs):
            return plain
        turned = in_mode(private_copy(network)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = tuple(_channels_last(x) for x in inputs)
        last = TorchRunner(turned, images, threads)
        times = [(runner.fastest(_RUNS), place) for place, runner in enumerate((plain, last))]
        return (plain, last)[min(times)[1]]

    def operators_ms(self, calls: Sequence[Call], threads: int) -> FloatArray:
        """The fastest of a few runs of each layer, in the faster memory order."""
        return np.array([_fastest_order(call, threads) for call in calls])


runtimes.register("torch")(TorchRuntime)


class CompiledTorch:
    """`torch.compile` with its default backend; needs a C++ compiler."""

    name: ClassVar[str] = "torch.compile"
    absorbs: ClassVar[frozenset[str]] = frozenset(
        {
            *("batch_norm", "_native_batch_norm_legit_no_training", "relu", "relu6", "hardtanh"),
            *("silu", "hardswish", "sigmoid", "gelu", "leaky_relu", "hardsigmoid"),
        }
    )
    profiles: ClassVar[bool] = False

    def version(self) -> str:
        """torch's version."""
        return torch.__version__

    def prepare(self, network: nn.Module, inputs: tuple[Any, ...], threads: int) -> Runner:
        """The compiled network."""
        compiled = torch.compile(in_mode(private_copy(network)))
        runner = TorchRunner(compiled, inputs, threads)
        try:
            runner.clock(1)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise UnsupportedModelError(
                f"torch.compile cannot run {type(network).__name__} here: {reason}. "
                "It needs a C++ compiler; use the runtime 'torch' or 'onnxruntime'."
            ) from error
        return runner

    def operators_ms(self, calls: Sequence[Call], threads: int) -> FloatArray:
        """Layers are torch's own kernels."""
        return TorchRuntime().operators_ms(calls, threads)


runtimes.register("torch.compile")(CompiledTorch)


class TorchRunner:
    """A module with its inputs."""

    def __init__(self, network: Any, inputs: tuple[Any, ...], threads: int | None) -> None:
        self._network, self._inputs, self._threads = network, inputs, threads
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        self._gpu = bool(tensors) and tensors[0].device.type == "cuda"

    def clock(self, loops: int) -> float:
        """Milliseconds a batch; on a GPU between two events on the current stream."""
        with using(self._threads), torch.inference_mode():
            if self._gpu:
                return self._gpu_ms(loops)
            start = time.perf_counter()
            for _ in range(loops):
                self._network(*self._inputs)
            return 1000.0 * (time.perf_counter() - start) / loops

    def fastest(self, runs: int) -> float:
        """The fastest batch, in milliseconds."""
        self.clock(1)
        return min(self.clock(1) for _ in range(runs))

    def _gpu_ms(self, loops: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        start.record()
        for _ in range(loops):
            self._network(*self._inputs)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / loops


def _channels_last(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value


def _fastest_order(call: Call, threads: int) -> float:
    with using(threads), torch.inference_mode():
        x, weight = torch.randn(call.input_shape), torch.randn(call.weight_shape)
        found = [_fastest(_layer(call, x, weight))]
        if x.ndim == 4:
            weight = _channels_last(weight)
            found.append(_fastest(_layer(call, _channels_last(x), weight)))
    return min(found)


def _layer(call: Call, x: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    lie = call.operator.lie
    if call.operator.kind == "linear":
        return lambda: functional.linear(x, weight)
    # What torch cannot pad itself differs little in time.
    padding = [max(lie.padding[i], lie.padding[i + 1]) for i in range(0, len(lie.padding), 2)][::-1]
    extra = list(lie.output_padding or (0,) * len(lie.kernel)) if lie.transposed else []
    stride, dilation = list(lie.stride), list(lie.dilation)
    return lambda: torch.convolution(
        x, weight, None, stride, padding, dilation, lie.transposed,
        extra or [0] * len(stride), call.groups,
    )  # fmt: skip


def _fastest(run: Callable[[], Tensor]) -> float:
    run()
    start = time.perf_counter()
    run()
    loops = max(1, min(50, int(_SAMPLE_MS / max(1000.0 * (time.perf_counter() - start), 1e-4))))
    least = float("inf")
    for _ in range(_RUNS):
        start = time.perf_counter()
        for _ in range(loops):
            run()
        least = min(least, 1000.0 * (time.perf_counter() - start) / loops)
    return least
