"""Reports as files: one HTML page, a CSV file per table, a PNG file per figure."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from randprune.atomic import write_file
from randprune.bench.records import BenchRun
from randprune.report import figures, tables
from randprune.report.chart import Chart
from randprune.report.html import Page, render
from randprune.report.latex import to_latex
from randprune.report.open import open_run
from randprune.report.page import build_page
from randprune.report.records import RunRecord
from randprune.report.table import Table
from randprune.store import Run


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """The files that were written."""

    html: Path
    csv: tuple[Path, ...]
    png: tuple[Path, ...]
    tex: tuple[Path, ...] = ()


def write_report(
    source: RunRecord | BenchRun | Run | str | os.PathLike[str], out: str | os.PathLike[str]
) -> ReportPaths:
    """Write the report of a run: `out`/report.html, `out`/tables/*.csv, `out`/figures/*.png.

    A benchmark gets the page of benchmarks, see `randprune.report.bench`. Works for running,
    interrupted and failed runs too, and says so. The page needs no other file and no network.

    Args:
        source: an output folder (the run worked on last), an open run, or its records.
        out: folder for the files, made where missing; an `out` that ends in ".html" names the page,
            and the other files lie beside it.

    Raises:
        StorageError: no records in the folder, or `out` cannot be written.
    """
    if isinstance(source, Run):
        record = BenchRun.of(source) if source.info.kind == "bench" else RunRecord.of(source)
    elif isinstance(source, (RunRecord, BenchRun)):
        record = source
    else:
        record = open_run(source)
    if isinstance(record, BenchRun):
        # It is made of what this module writes.
        from randprune.report.bench import write_bench_report

        return write_bench_report(record, out)
    return write_page(build_page(record), tables.csv_tables(record), figures.figures(record), out)


def write_page(
    page: Page,
    csv: Iterable[Table],
    charts: Iterable[Chart],
    out: str | os.PathLike[str],
    latex: Iterable[Table] = (),
) -> ReportPaths:
    """Write any page with its tables and charts; see `write_report` for where the files go.

    `latex`: the tables that are written as `tables/*.tex` too, for papers.
    """
    target = Path(out)
    is_page = target.suffix.lower() in (".html", ".htm")
    folder, name = (target.parent, target.name) if is_page else (target, "report.html")
    # matplotlib takes half a second to import, which only those who write figures should wait for.
    from randprune.report.png import to_png

    return ReportPaths(
        _write_text(folder / name, render(page)),
        tuple(_write_text(folder / "tables" / f"{t.id}.csv", t.to_csv()) for t in csv),
        tuple(write_file(folder / "figures" / f"{c.id}.png", to_png(c)) for c in charts),
        tuple(_write_text(folder / "tables" / f"{t.id}.tex", to_latex(t)) for t in latex),
    )


def _write_text(path: Path, text: str) -> Path:
    # Names from the file system may hold what UTF-8 cannot encode.
    return write_file(path, text.encode("utf-8", "replace"))
