"""Work for executors that needs no network: numbers are halved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from randprune.errors import DataError, StorageError
from randprune.executors import Do, Tell, Wire, Work


@dataclass(frozen=True, slots=True)
class Halve:
    """A number to halve."""

    number: float


@dataclass(frozen=True, slots=True)
class Threads:
    """Tell how many threads the work may use."""


@dataclass(frozen=True, slots=True)
class Half:
    """What came of it."""

    value: float


def halve(unit: Halve | Threads, tell: Tell) -> Half:
    """The half; numbers below 0 fail, and 0 finds a full disk."""
    tell(0.5)
    print("what plug-ins print disturbs nothing")
    if isinstance(unit, Threads):
        return Half(float(torch.get_num_threads()))
    if unit.number < 0:
        raise DataError(f"no half of {unit.number}")
    if unit.number == 0:
        raise StorageError("no space")
    return Half(unit.number / 2)


def opened(document: Mapping[str, Any]) -> Do[Halve | Threads, Half]:
    """Work that is scaled by the document."""

    def do(unit: Halve | Threads, tell: Tell) -> Half:
        half = halve(unit, tell)
        return Half(half.value * document["factor"])

    return do


WORK: Work[Halve | Threads, Half] = Work(__name__, "WORK", opened, Wire(Halve, Threads), Wire(Half))
