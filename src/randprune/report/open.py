"""Which kind of run an output folder holds, and its records."""

from __future__ import annotations

import os

from randprune.bench.records import BenchRun
from randprune.report.records import RunRecord
from randprune.store import Store


def open_run(folder: str | os.PathLike[str]) -> RunRecord | BenchRun:
    """The records of the run that was worked on last in a folder, of its kind.

    Raises:
        StorageError: no records there, or not readable; or a benchmark that has only just begun.
    """
    with Store.open(folder, read_only=True) as store:
        kind = store.latest().info.kind
    return BenchRun.load(folder) if kind == "bench" else RunRecord.load(folder)
