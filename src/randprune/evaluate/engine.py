"""How a network is run: device, precision, memory order and batch size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from randprune.errors import InvalidInputError, quoted

Dtype = Literal["float32", "bfloat16"]
Precision = Literal["auto", "float32", "bfloat16"]
Choice = Literal["rules", "measured"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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
        if self.dtype not in DTYPES:
            raise InvalidInputError(
                "The 'dtype' parameter of Engine must be 'float32' or 'bfloat16'. "
                f"Got {quoted(self.dtype)} instead."
            )
        if self.batch_size < 1:
            raise InvalidInputError(
                "The 'batch_size' parameter of Engine must be at least 1. "
                f"Got {self.batch_size} instead."
            )

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of images and weights."""
        return DTYPES[self.dtype]

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
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(
            f"The device {quoted(device)} cannot be used: {reason}. Use 'cpu'."
        ) from error
    return found


def synchronize(device: torch.device | str) -> None:
    """Wait for a GPU to finish; nothing on a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
