"""Work that tells where it is done: it waits, and may kill its process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from randprune.executors import Do, Tell, Wire, Work


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for some seconds.

    `together`: first until so many are at work at once, two minutes at most. `dies`: kill the
    process, the first time or, `again`, always.
    """

    number: int
    seconds: float
    folder: str
    dies: bool = False
    again: bool = False
    together: int = 1


@dataclass(frozen=True, slots=True)
class Here:
    """Who did it, and how many others were at work at that moment."""

    number: int
    pid: int
    others: int


def slept(unit: Sleep, tell: Tell) -> Here:
    """Wait, with a file that says so."""
    folder = Path(unit.folder)
    died = folder / f"died-{unit.number}"
    if unit.dies and (unit.again or not died.exists()):
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    mine = folder / f"busy-{unit.number}"
    mine.touch()
    for _ in range(1200):
        others = len(list(folder.glob("busy-*"))) - 1
        if others >= unit.together - 1:
            break
        time.sleep(0.1)
    time.sleep(unit.seconds / 2)
    tell(0.5)
    time.sleep(unit.seconds / 2)
    mine.unlink(missing_ok=True)
    return Here(unit.number, os.getpid(), others)


def opened(document: Mapping[str, Any]) -> Do[Sleep, Here]:
    """Nothing to open."""
    return slept


SLOW: Work[Sleep, Here] = Work(__name__, "SLOW", opened, Wire(Sleep), Wire(Here))
