"""Measured latency: networks side by side, round by round, with intervals.

All networks of a comparison run in one process, in turn, so that drift of the machine (other jobs,
clock frequency, heat) meets all of them alike, and a speed-up is a median of ratios taken within
rounds. Warm-up runs are excluded, and the result says how many and what the first one took.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from randprune.errors import InvalidInputError
from randprune.graph.program import Inputs, as_inputs, in_mode, private_copy
from randprune.latency.runtime import Runner, Runtime, runtimes
from randprune.latency.torch_runtime import TorchRunner

# A sample repeats the network until it takes about this long, so that the clock's grain and one
# interrupt do not matter.
_SAMPLE_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one network takes for one batch.

    Attributes:
        median_ms: of the samples, in milliseconds.
        low_ms, high_ms: interval of the median with at least 95 % confidence, from order
            statistics (no assumption on the distribution); fewer than 6 samples give their range.
        samples_ms: one number a round, in order; round i of all networks ran together.
        batch: images a run.
        dtype, device, threads: how it ran (threads: of the CPU).
        warmup: runs before the first sample, excluded.
        first_ms: the very first, cold run, excluded too.
        runtime: what ran it.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    samples_ms: tuple[float, ...]
    batch: int
    dtype: str
    device: str
    threads: int
    warmup: int
    first_ms: float
    runtime: str = "torch"

    @property
    def images_per_second(self) -> float:
        """Throughput at the median."""
        return 1000.0 * self.batch / self.median_ms


@dataclass(frozen=True, slots=True)
class PairedSpeedup:
    """How many times faster one network is than a baseline; above 1 = faster.

    `ratio` is the median over rounds of (baseline time / network time), `low` and `high` its
    interval as in `Timing`.
    """

    ratio: float
    low: float
    high: float
    rounds: int


def measure_latency(
    models: Mapping[str, nn.Module],
    inputs: Inputs,
    *,
    repeats: int = 50,
    warmup: int = 5,
    threads: int | None = None,
    runtime: str | Runtime | None = None,
) -> dict[str, Timing]:
    """Latency of each network on `inputs`, measured in turn; the networks are not modified.

    By default each runs as it is in torch (its dtype, device and memory order), in evaluation mode,
    without gradients. Every other round runs them in reverse order, so that none always follows the
    same one.

    Args:
        models: networks by name; all on the device of the inputs.
        inputs: a tensor, or a tuple of what `forward` takes; the first one's first axis counts as
            the batch.
        repeats: rounds, one sample of each network a round.
        warmup: runs of each network that are excluded, at least 1.
        threads: CPU threads while measuring; default: as set in torch. Restored afterwards.
        runtime: what runs them, by name or as an object, such as "onnxruntime".

    Raises:
        InvalidInputError: no network, fewer than 1 round or warm-up run, no tensor as input, or a
            runtime that is not installed.
        UnsupportedModelError: the runtime cannot run a network.
    """
    for parameter, value in (("repeats", repeats), ("warmup", warmup), ("threads", threads)):
        if value is not None and value < 1:
            raise InvalidInputError(
                f"The {parameter!r} parameter of measure_latency must be at least 1. Got {value}."
            )
    arguments = as_inputs(inputs)
    tensors = [x for x in arguments if isinstance(x, Tensor)]
    if not models or not tensors:
        missing = "networks" if not models else "input tensors"
        raise InvalidInputError(f"There are no {missing} to measure the latency with.")
    count = torch.get_num_threads() if threads is None else threads
    runners = _runners(models, arguments, count, threads, runtime)
    name_of_runtime = "torch" if runtime is None else named_runtime(runtime).name
    found = interleaved(runners, repeats, warmup)
    return {
        name: _timing(found[name], tensors[0], _dtype_of(models[name], tensors[0]), count, warmup,
                      name_of_runtime)
        for name in models
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rounds:
    """What one runner took: its first, cold run, and one sample a round, in milliseconds."""

    first_ms: float
    samples_ms: tuple[float, ...]


def interleaved(runners: Mapping[str, Runner], repeats: int, warmup: int = 5) -> dict[str, Rounds]:
    """Samples of all runners, taken in turn, every other round in reverse order."""
    names = list(runners)
    first = {name: runner.clock(1) for name, runner in runners.items()}
    loops: dict[str, int] = {}
    for name, runner in runners.items():
        warm = [first[name], *(runner.clock(1) for _ in range(warmup - 1))]
        loops[name] = max(1, math.ceil(1000.0 * _SAMPLE_SECONDS / max(min(warm), 1e-6)))
    samples: dict[str, list[float]] = {name: [] for name in runners}
    with _no_garbage_collection():
        for turn in range(repeats):
            for name in names if turn % 2 == 0 else reversed(names):
                samples[name].append(runners[name].clock(loops[name]))
    return {name: Rounds(first[name], tuple(samples[name])) for name in runners}


def named_runtime(runtime: str | Runtime) -> Runtime:
    """A runtime by name, or itself."""
    return runtimes.named_or_given(runtime, Runtime, "runtime")


def _runners(
    models: Mapping[str, nn.Module],
    inputs: tuple[Any, ...],
    count: int,
    threads: int | None,
    runtime: str | Runtime | None,
) -> dict[str, Runner]:
    if runtime is None:
        return {
            name: TorchRunner(in_mode(private_copy(model)), inputs, threads)
            for name, model in models.items()
        }
    engine = named_runtime(runtime)
    return {name: engine.prepare(model, inputs, count) for name, model in models.items()}


def speedup(baseline: Timing, faster: Timing) -> PairedSpeedup:
    """How many times faster the second network is, from two results of one `measure_latency` call.

    Raises:
        InvalidInputError: the two were not measured together.
    """
    mine, theirs = faster.samples_ms, baseline.samples_ms
    same = (baseline.batch, baseline.device, baseline.threads, baseline.runtime, len(theirs))
    if same != (faster.batch, faster.device, faster.threads, faster.runtime, len(mine)):
        raise InvalidInputError(
            "A speed-up needs two networks measured in the same call of measure_latency. Got "
            f"batch {baseline.batch} and {faster.batch}, {len(theirs)} and {len(mine)} rounds, on "
            f"{baseline.device} and {faster.device}."
        )
    ratios = [b / m for b, m in zip(theirs, mine, strict=True)]
    low, high = median_interval(ratios)
    return PairedSpeedup(median(ratios), low, high, len(ratios))


def median_interval(samples: list[float], confidence: float = 0.95) -> tuple[float, float]:
    """Order statistics around the median of independent samples, with at least `confidence`.

    The population median lies between the k-th smallest and the k-th largest sample unless fewer
    than k samples fall on one side of it: probability 1 - 2 P(Binomial(n, 1/2) < k). The largest
    such k is taken; where even k = 1 does not reach `confidence` (n < 6), the range is returned.
    """
    ordered, n = sorted(samples), len(samples)
    k, tail = 0, 0.0
    while k < (n + 1) // 2:
        tail += math.comb(n, k) / 2**n
        if 2 * tail > 1.0 - confidence:
            break
        k += 1
    k = max(k, 1)
    return ordered[k - 1], ordered[n - k]


def _timing(
    found: Rounds, images: Tensor, dtype: str, threads: int, warmup: int, runtime: str
) -> Timing:
    samples = list(found.samples_ms)
    low, high = median_interval(samples)
    return Timing(
        median_ms=median(samples),
        low_ms=low,
        high_ms=high,
        samples_ms=found.samples_ms,
        batch=images.shape[0] if images.ndim else 1,
        dtype=dtype,
        device=str(images.device),
        threads=threads,
        warmup=warmup,
        first_ms=found.first_ms,
        runtime=runtime,
    )


def _dtype_of(network: nn.Module, images: Tensor) -> str:
    found = next((p.dtype for p in network.parameters()), images.dtype)
    return str(found).removeprefix("torch.")


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
