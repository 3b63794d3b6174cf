"""How often the runs of a folder have opened a test set: what was seen counts together."""

from __future__ import annotations

from dataclasses import dataclass

from randprune.store.rows import ModelInfo, UseOfTestSet
from randprune.store.run import Run


@dataclass(frozen=True, slots=True)
class Openings:
    """Of one test set: how often it was opened, and by how many runs.

    Attributes:
        times: before and in final evaluations.
        runs: that opened it at least once.
    """

    times: int = 0
    runs: int = 0


NEVER_OPENED = Openings()


def openings_of(run: Run) -> Openings:
    """Of the run's test set, by all runs of its folder that have the same images.

    A run whose images are not known, as of older versions, is counted alone.
    """
    known = run.read(ModelInfo)
    fingerprint = known.test_fingerprint if known else ""
    times = runs = 0
    for other in run.store.runs():
        about, use = other.read(ModelInfo), other.read(UseOfTestSet)
        same = fingerprint != "" and about is not None and about.test_fingerprint == fingerprint
        if use is None or not (same or other.id == run.id):
            continue
        opened = use.before_final + use.final
        times, runs = times + opened, runs + (opened > 0)
    return Openings(times, runs)
