"""The fastest engine for a network on this machine, by measuring: an option, since clocks differ.

Two measurements may end differently, and other dtypes, orders and sizes round differently: two runs
of the same seed need not give the same network then. `randprune.evaluate.rules` is the default.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from randprune.errors import InvalidInputError, RandpruneError
from randprune.evaluate.allocator import keep_freed_memory
from randprune.evaluate.engine import Dtype, Engine, Precision, Trial, synchronize
from randprune.evaluate.inference import inference_copy, prepared
from randprune.graph.trees import count_of, floating_leaves, part_of

# Above 256 images no CPU tried was faster: activations leave the cache.
_BATCH_SIZES = {"cpu": (32, 64, 128, 256), "cuda": (128, 256, 512, 1024, 2048)}
_UNMEASURED_BATCH = 16
# bfloat16 must be clearly faster to be worth its rounding. The choice does not flip from one run to
# the next: with hardware for it, it is about twice as fast; without, several times slower.
_WORTH_ROUNDING = 1.15
_CLOSE = 0.97
_ROUNDS = 2
_PROBE_SECONDS = 0.05
_MOST_SECONDS = 1.0


def measured_engine(
    model: nn.Module, inputs: tuple[Any, ...], precision: Precision, device: str
) -> Engine:
    """The fastest engine for networks like `model`, in a second or less of short runs.

    Precision and memory order first, interleaved, then the batch size (on a CPU the one whose
    activations fit the cache).

    Raises:
        InvalidInputError: the network does not run in this precision, or returns no tensors.
    """
    keep_freed_memory()
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16") if precision == "auto" else (precision,)
    plain = _Runner(model, inputs, Engine(device=device, batch_size=1))
    all_finite, speed = plain.gives_finite_outputs(), plain.images_per_second(1)
    probe = int(max(1, min(64, plain.count, speed * _PROBE_SECONDS)))
    trials: list[Trial] = []
    runners: list[_Runner] = []
    for dtype in dtypes:
        for channels_last in (True, False):
            engine = Engine(device, dtype, channels_last, probe)
            try:
                runner = _Runner(model, inputs, engine)
                finite = runner.gives_finite_outputs()
            except (RuntimeError, TypeError, RandpruneError) as error:
                if dtype == "float32" and channels_last:
                    raise
                problem = str(error).splitlines()[0] if str(error) else type(error).__name__
                trials.append(Trial(dtype, channels_last, probe, 0.0, problem))
                continue
            # Weights that overflow in float32 too say nothing about bfloat16.
            if finite or not all_finite:
                runners.append(runner)
            else:
                trials.append(Trial(dtype, channels_last, probe, 0.0, "outputs not finite"))
    if not runners:
        raise InvalidInputError(
            f"{type(model).__name__} does not run in {precision}: {trials[0].problem}. "
            "Use precision='float32'."
        )
    speeds = _interleaved([runner.once for runner in runners], probe)
    trials += [_trial(r.engine, s) for r, s in zip(runners, speeds, strict=True)]
    worth = [s if r.engine.dtype == "float32" or precision != "auto" else s / _WORTH_ROUNDING
             for r, s in zip(runners, speeds, strict=True)]  # fmt: skip
    best = max(range(len(runners)), key=worth.__getitem__)
    sized = _sizes(runners[best], speeds[best])
    trials += sized
    fastest = max((trial.images_per_second for trial in sized), default=0.0)
    good = [t.batch_size for t in sized if t.images_per_second >= _CLOSE * fastest]
    size = min(good, default=min(_UNMEASURED_BATCH, plain.count))
    chosen = runners[best].engine
    return Engine(device, chosen.dtype, chosen.channels_last, size, tuple(trials))


def _sizes(runner: _Runner, speed: float) -> list[Trial]:
    """Trials of the batch sizes that fit the data and can be measured in a reasonable time."""
    kind = torch.device(runner.engine.device).type
    sizes = [
        size
        for size in _BATCH_SIZES.get(kind, _BATCH_SIZES["cuda"])
        if size <= runner.count and size / speed <= _MOST_SECONDS
    ]
    if not sizes:
        return []
    # As many images for each size, so that large batches are not measured better than small ones.
    most = max(sizes)
    speeds = _interleaved([partial(runner.cover, most, size) for size in sizes], most)
    engine = runner.engine
    return [
        Trial(engine.dtype, engine.channels_last, size, round(found, 1))
        for size, found in zip(sizes, speeds, strict=True)
    ]


def _interleaved(runs: list[Callable[[], float]], images: int) -> list[float]:
    """Images a second of each run: the best of several rounds, interleaved, after a warm-up."""
    seconds = [float("inf")] * len(runs)
    for attempt in range(_ROUNDS + 1):
        for i, run in enumerate(runs):
            spent = run()
            if attempt:
                seconds[i] = min(seconds[i], spent)
    return [images / s for s in seconds]


def _trial(engine: Engine, speed: float) -> Trial:
    return Trial(engine.dtype, engine.channels_last, engine.batch_size, round(speed, 1))


class _Runner:
    """A copy of the network and some inputs, ready to be timed under one engine."""

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...], engine: Engine) -> None:
        self.engine = engine
        self.network = inference_copy(
            model,
            inputs,
            dtype=engine.torch_dtype,
            device=engine.device,
            channels_last=engine.channels_last,
        ).network
        self.count = count_of(inputs)
        place = torch.device(engine.device)
        self.inputs = prepared(inputs, place, engine.torch_dtype, engine.memory_format)

    def gives_finite_outputs(self) -> bool:
        """Run once; raises where the network cannot run like this."""
        with torch.inference_mode():
            outputs = floating_leaves(self.network(*part_of(self.inputs, slice(2))))
        return all(bool(torch.isfinite(z).all()) for z in outputs.values())

    def once(self) -> float:
        """Seconds for one batch."""
        return self.cover(self.engine.batch_size, self.engine.batch_size)

    def cover(self, count: int, size: int) -> float:
        """Seconds for `count` images in batches of `size`."""
        synchronize(self.engine.device)
        start = time.perf_counter()
        with torch.inference_mode():
            for first in range(0, count, size):
                self.network(*part_of(self.inputs, slice(first, min(first + size, count))))
        synchronize(self.engine.device)
        return time.perf_counter() - start

    def images_per_second(self, count: int) -> float:
        """Speed at a batch of `count`, warm."""
        self.cover(count, count)
        return count / self.cover(count, count)
