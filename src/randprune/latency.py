"""Measured latency: networks side by side, round by round, with intervals.

All networks of a comparison run in one process, in turn, so that drift of the machine (other jobs,
clock frequency, heat) meets all of them alike, and a speed-up is a median of ratios taken within
rounds. Warm-up runs are excluded, and the result says how many and what the first one took.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from randprune.errors import InvalidInputError
from randprune.evaluate.threads import using
from randprune.graph.program import Inputs, as_inputs, in_mode, private_copy

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
) -> dict[str, Timing]:
    """Latency of each network on `inputs`, measured in turn; the networks are not modified.

    Each runs as it is (its dtype, device and memory order) in evaluation mode, without gradients.
    Every other round runs them in reverse order, so that none always follows the same one.

    Args:
        models: networks by name; all on the device of the inputs.
        inputs: a tensor, or a tuple of what `forward` takes; the first one's first axis counts as
            the batch.
        repeats: rounds, one sample of each network a round.
        warmup: runs of each network that are excluded, at least 1.
        threads: CPU threads while measuring; default: as set. Restored afterwards.

    Raises:
        InvalidInputError: no network, fewer than 1 round or warm-up run, or no tensor as input.
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
    place = tensors[0].device
    clock = _gpu_ms if place.type == "cuda" else _cpu_ms
    with using(threads), torch.inference_mode():
        networks = {name: in_mode(private_copy(model)) for name, model in models.items()}
        first = {name: clock(network, arguments, 1) for name, network in networks.items()}
        loops = {}
        for name, network in networks.items():
            warm = [first[name], *(clock(network, arguments, 1) for _ in range(warmup - 1))]
            loops[name] = max(1, math.ceil(1000.0 * _SAMPLE_SECONDS / max(min(warm), 1e-6)))
        samples: dict[str, list[float]] = {name: [] for name in networks}
        with _no_garbage_collection():
            for turn in range(repeats):
                order = list(networks) if turn % 2 == 0 else list(reversed(networks))
                for name in order:
                    samples[name].append(clock(networks[name], arguments, loops[name]))
        count = torch.get_num_threads()
    return {
        name: _latency(
            found, tensors[0], _dtype_of(networks[name], tensors[0]), count, warmup, first[name]
        )
        for name, found in samples.items()
    }


def speedup(baseline: Timing, faster: Timing) -> PairedSpeedup:
    """How many times faster the second network is, from two results of one `measure_latency` call.

    Raises:
        InvalidInputError: the two were not measured together.
    """
    mine, theirs = faster.samples_ms, baseline.samples_ms
    same = (baseline.batch, baseline.device, baseline.threads, len(theirs))
    if same != (faster.batch, faster.device, faster.threads, len(mine)):
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


def _cpu_ms(network: nn.Module, arguments: tuple[object, ...], loops: int) -> float:
    """Milliseconds a run."""
    start = time.perf_counter()
    for _ in range(loops):
        network(*arguments)
    return 1000.0 * (time.perf_counter() - start) / loops


def _gpu_ms(network: nn.Module, arguments: tuple[object, ...], loops: int) -> float:
    """Milliseconds a run between two events on the current stream."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    for _ in range(loops):
        network(*arguments)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / loops


def _latency(
    samples: list[float], images: Tensor, dtype: str, threads: int, warmup: int, first: float
) -> Timing:
    low, high = median_interval(samples)
    return Timing(
        median_ms=median(samples),
        low_ms=low,
        high_ms=high,
        samples_ms=tuple(samples),
        batch=images.shape[0] if images.ndim else 1,
        dtype=dtype,
        device=str(images.device),
        threads=threads,
        warmup=warmup,
        first_ms=first,
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
