"""Which kind of run an output folder holds, and the report of each kind."""

from __future__ import annotations

import os

from randprune.bench.records import BenchRun
from randprune.report.bench.page import bench_report
from randprune.report.document import Report
from randprune.report.run.page import run_report
from randprune.report.run.records import RunRecord
from randprune.report.write import ReportPaths, write_files
from randprune.store import Run, Store, run_of_budget


def open_run(folder: str | os.PathLike[str], budget: float | None = None) -> RunRecord | BenchRun:
    """The records of the run that was worked on last in a folder, of its kind.

    Args:
        folder: the output folder.
        budget: of a job with several budgets, the ratio of the one that is asked for.

    Raises:
        StorageError: no records there, or not readable; no such budget; or a benchmark that has
            only just begun.
    """
    with Store.open(folder, read_only=True) as store:
        run = store.latest() if budget is None else run_of_budget(store.latest(), budget)
        kind = run.info.kind
    return BenchRun.load(folder) if kind == "bench" else RunRecord.load(folder, run.id)


def report_of(source: RunRecord | BenchRun | Run | str | os.PathLike[str]) -> Report:
    """The report of a run as data: also of one that is at work, was interrupted or failed.

    Args:
        source: an output folder (the run worked on last), an open run, or its records.

    Raises:
        StorageError: no records in the folder, or not readable.
    """
    if isinstance(source, Run):
        record = BenchRun.of(source) if source.info.kind == "bench" else RunRecord.of(source)
    elif isinstance(source, (RunRecord, BenchRun)):
        record = source
    else:
        record = open_run(source)
    return bench_report(record) if isinstance(record, BenchRun) else run_report(record)


def write_report(
    source: Report | RunRecord | BenchRun | Run | str | os.PathLike[str],
    out: str | os.PathLike[str],
) -> ReportPaths:
    """Write the report of a run: `out`/report.html, `out`/tables/*.csv, `out`/figures/*.png.

    Works for running, interrupted and failed runs too, and says so. The page needs no other file
    and no network. Benchmarks have their tables as `out`/tables/*.tex as well.

    Args:
        source: a report, or what `report_of` makes one of.
        out: folder for the files, made where missing; an `out` that ends in ".html" names the page,
            and the other files lie beside it.

    Raises:
        StorageError: no records in the folder, or `out` cannot be written.
    """
    return write_files(source if isinstance(source, Report) else report_of(source), out)
