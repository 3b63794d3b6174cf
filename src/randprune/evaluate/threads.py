"""How many threads a job computes with: decided once, recorded, kept when the job is resumed.

Threads of one operation wait for each other. On a machine whose cores are taken by other processes,
a thread that waits for a core holds up all others, and where the waiting ones spin (the default of
OpenMP) they take the cores away themselves: measured on two cores with eight other processes, one
batch of ResNet-56 took 0.9 s with one thread, 6.1 s with two that spin, 1.1 s with two that sleep.
So commands let waiting threads sleep (`randprune.cli.waiting`): the load of the machine has no
say. A library finds torch loaded, where that can no longer be chosen: there fewer threads are used
while other processes are at work.

The number of threads can change the last bits of a sum (measured: float32 EfficientNet-Lite0, 3e-6
of the logits; ResNet-56 and all of bfloat16: none). So the records of a run hold it, and a run that
is resumed goes on with it, whatever machine it finds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from randprune.provenance import usable_cores

_ASKED, _WAITING = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"


@dataclass(frozen=True, slots=True)
class Threads:
    """How many threads, and why so many."""

    count: int
    why: str


def decide(recorded: int | None = None) -> Threads:
    """The number of threads for a job that begins now.

    In this order: the `recorded` number of a run that is resumed; OMP_NUM_THREADS; a number that
    was set in torch; all usable cores, less those of other processes where waiting threads spin.

    Args:
        recorded: what the run began with, if it did.
    """
    if recorded is not None:
        return Threads(max(1, recorded), "the run began with it")
    asked = os.environ.get(_ASKED, "")
    if asked.isdecimal() and int(asked) > 0:
        return Threads(int(asked), _ASKED)
    cores, present = usable_cores(), torch.get_num_threads()
    # torch begins with the physical cores, which are half of the usable ones with two threads each.
    if present not in (cores, max(1, cores // 2)):
        return Threads(present, "torch.set_num_threads")
    taken = 0 if os.environ.get(_WAITING, "").lower() == "passive" else _others()
    if taken == 0:
        return Threads(present, "all usable cores")
    return Threads(
        max(1, min(present, cores - taken)), f"other processes use {taken} of {cores} cores"
    )


@contextmanager
def using(count: int | None) -> Iterator[None]:
    """This many threads in the block, those from before after it; None changes nothing."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _others() -> int:
    """How many cores other processes use now; 0 where the system does not tell."""
    try:
        return round(os.getloadavg()[0])
    except (OSError, AttributeError):
        return 0
