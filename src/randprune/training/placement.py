"""Where training runs, and randomness that leaves the caller's alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from randprune.errors import InvalidInputError
from randprune.evaluate.engine import pick_device
from randprune.zoo.splits import Samples, TensorSplit


def derived_seed(*numbers: int) -> int:
    """A 63-bit seed from whole numbers, the same in every process."""
    digest = hashlib.sha256(",".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def make_accelerator(device: torch.device | str | None, every_parameter_used: bool) -> Any:
    """An `accelerate.Accelerator` for the device; it wraps networks of several processes.

    Raises:
        InvalidInputError: accelerate already runs on another device in this process.
    """
    # Imported here: it costs a third of a second, and most commands do not train.
    from accelerate import Accelerator, DistributedDataParallelKwargs

    place = pick_device(device)
    handlers = []
    if not every_parameter_used:
        handlers.append(DistributedDataParallelKwargs(find_unused_parameters=True))
    accelerator = Accelerator(cpu=place.type == "cpu", kwargs_handlers=handlers)
    if accelerator.device.type != place.type:
        raise InvalidInputError(
            f"This process already trains on {accelerator.device} through accelerate and cannot "
            f"change to {place}. Start a new process, or pass device={str(accelerator.device)!r}."
        )
    return accelerator


def placed(split: Samples, device: torch.device, channels_last: bool) -> Samples:
    """Images in memory go to the GPU once, as stored, and come in the memory order wanted."""
    if isinstance(split, TensorSplit):
        moved = split if device.type == "cpu" else split.to(device)
        return replace(moved, channels_last=channels_last)
    return split


@contextmanager
def private_randomness(device: torch.device) -> Iterator[None]:
    """The global random states of torch, put back at the end."""
    gpus = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        yield
