"""How this machine runs a network fastest: precision, memory order and batch size, by measuring."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from randprune.errors import DataError, InvalidInputError, RandpruneError
from randprune.evaluate.allocator import keep_freed_memory
from randprune.evaluate.inference import inference_copy, logits_of
from randprune.zoo.splits import Split

Dtype = Literal["float32", "bfloat16"]
Precision = Literal["auto", "float32", "bfloat16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Above 256 images no CPU tried was faster: activations leave the cache.
_BATCH_SIZES = {"cpu": (32, 64, 128, 256), "cuda": (128, 256, 512, 1024, 2048)}
_MOST_IMAGES = {"cpu": 256, "cuda": 2048}
_UNMEASURED_BATCH = 16
# bfloat16 must be clearly faster to be worth its rounding. The choice does not flip from one run to
# the next: with hardware for it, it is about twice as fast; without, several times slower.
_WORTH_ROUNDING = 1.15
_CLOSE = 0.97
_ROUNDS = 2
_PROBE_SECONDS = 0.05
_MOST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One measured way to run the network: images a second, and why it was left out, if it was."""

    dtype: str
    channels_last: bool
    batch_size: int
    images_per_second: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Engine:
    """A way to run networks of one family on one machine; reusable for all their candidates.

    Attributes:
        device: "cpu", "cuda:0", ...
        dtype: "float32" or "bfloat16".
        channels_last: memory order of images and weights.
        batch_size: images a batch.
        trials: all that was measured; empty where it was not chosen by measuring.
    """

    device: str = "cpu"
    dtype: Dtype = "float32"
    channels_last: bool = True
    batch_size: int = 128
    trials: tuple[Trial, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise InvalidInputError(
                "The 'dtype' parameter of Engine must be 'float32' or 'bfloat16'. "
                f"Got {self.dtype!r} instead."
            )
        if self.batch_size < 1:
            raise InvalidInputError(
                "The 'batch_size' parameter of Engine must be at least 1. "
                f"Got {self.batch_size} instead."
            )

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of images and weights."""
        return _DTYPES[self.dtype]

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory order of images."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def document(self) -> dict[str, str | bool | int]:
        """What records keep of it, plain data: `Engine(**document)` runs as this one does."""
        return {
            "device": self.device,
            "dtype": self.dtype,
            "channels_last": self.channels_last,
            "batch_size": self.batch_size,
        }


_CHOSEN: dict[tuple[object, ...], Engine] = {}


def choose_engine(
    model: nn.Module,
    split: Split,
    *,
    precision: Precision = "auto",
    device: torch.device | str | None = None,
    batch_size: int | None = None,
) -> Engine:
    """The fastest engine for networks like `model` on this machine, measured once a process.

    A second or less of short runs: precision and memory order first, interleaved, then the batch
    size (on a CPU the one whose activations fit the cache). Networks of the same class with as many
    modules, on images of the same shape, share the result: candidates cut from one network do.

    Args:
        model: the network, or any of its candidates; not modified.
        split: the first images of it are used.
        precision: "auto" takes bfloat16 where it is clearly faster; for ranking. "float32" is for
            numbers that are reported.
        device: default: the GPU if there is one.
        batch_size: images a batch, channels last; then only "auto" is measured. Two measurements
            may end differently, and other sizes and orders round differently: whoever needs the
            same bits in two runs gives both a size.

    Raises:
        InvalidInputError: the network does not return logits for these images.
        DataError: the split is empty.
    """
    if precision not in ("auto", *_DTYPES):
        raise InvalidInputError(
            "The 'precision' parameter of choose_engine must be 'auto', 'float32' or 'bfloat16'. "
            f"Got {precision!r} instead."
        )
    place = str(pick_device(device))
    if batch_size is not None and precision != "auto":
        return Engine(place, precision, True, batch_size)
    key = (
        f"{type(model).__module__}.{type(model).__qualname__}",
        sum(1 for _ in model.modules()),
        tuple(split.image_shape),
        min(len(split), _images_used(place)),
        precision,
        place,
        torch.get_num_threads(),
    )
    if key not in _CHOSEN:
        _CHOSEN[key] = _measure(model, _first_images(split, _images_used(place)), precision, place)
    chosen = _CHOSEN[key]
    if batch_size is None:
        return chosen
    return replace(chosen, channels_last=True, batch_size=batch_size)


def pick_device(device: torch.device | str | None) -> torch.device:
    """`device`, or the GPU if there is one, or the CPU.

    Raises:
        InvalidInputError: a device that this machine does not have.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(f"No device {device!r} here: {reason}. Use 'cpu'.") from error
    return found


def synchronize(device: torch.device | str) -> None:
    """Wait for a GPU to finish; nothing on a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _images_used(device: str) -> int:
    return _MOST_IMAGES.get(torch.device(device).type, _MOST_IMAGES["cuda"])


def _first_images(split: Split, count: int) -> Tensor:
    if len(split) == 0:
        raise DataError("The split holds no images, so nothing can be evaluated.")
    images, _ = next(iter(split.batches(min(len(split), count))))
    return images.float()


def _measure(model: nn.Module, images: Tensor, precision: Precision, device: str) -> Engine:
    keep_freed_memory()
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16") if precision == "auto" else (precision,)
    plain = _Runner(model, images, Engine(device=device, batch_size=1))
    all_finite, speed = plain.gives_finite_logits(), plain.images_per_second(1)
    probe = int(max(1, min(64, len(images), speed * _PROBE_SECONDS)))
    trials: list[Trial] = []
    runners: list[_Runner] = []
    for dtype in dtypes:
        for channels_last in (True, False):
            engine = Engine(device, dtype, channels_last, probe)
            try:
                runner = _Runner(model, images, engine)
                finite = runner.gives_finite_logits()
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
                trials.append(Trial(dtype, channels_last, probe, 0.0, "logits not finite"))
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
    size = min(good, default=min(_UNMEASURED_BATCH, len(images)))
    chosen = runners[best].engine
    return Engine(device, chosen.dtype, chosen.channels_last, size, tuple(trials))


def _sizes(runner: _Runner, speed: float) -> list[Trial]:
    """Trials of the batch sizes that fit the data and can be measured in a reasonable time."""
    kind = torch.device(runner.engine.device).type
    sizes = [
        size
        for size in _BATCH_SIZES.get(kind, _BATCH_SIZES["cuda"])
        if size <= len(runner.images) and size / speed <= _MOST_SECONDS
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
    """A copy of the network and some images, ready to be timed under one engine."""

    def __init__(self, model: nn.Module, images: Tensor, engine: Engine) -> None:
        self.engine = engine
        self.name = type(model).__name__
        self.network = inference_copy(
            model,
            images,
            dtype=engine.torch_dtype,
            device=engine.device,
            channels_last=engine.channels_last,
        ).network
        self.images = images.to(engine.device, engine.torch_dtype).contiguous(
            memory_format=engine.memory_format
        )

    def gives_finite_logits(self) -> bool:
        """Run once; raises where the network cannot run like this."""
        with torch.inference_mode():
            logits = logits_of(self.network(self.images[:2]), self.name)
        return bool(torch.isfinite(logits).all())

    def once(self) -> float:
        """Seconds for one batch."""
        return self.cover(self.engine.batch_size, self.engine.batch_size)

    def cover(self, count: int, size: int) -> float:
        """Seconds for `count` images in batches of `size`."""
        synchronize(self.engine.device)
        start = time.perf_counter()
        with torch.inference_mode():
            for first in range(0, count, size):
                self.network(self.images[first : min(first + size, count)])
        synchronize(self.engine.device)
        return time.perf_counter() - start

    def images_per_second(self, count: int) -> float:
        """Speed at a batch of `count`, warm."""
        self.cover(count, count)
        return count / self.cover(count, count)
