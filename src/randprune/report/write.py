"""A report as files: one HTML page, a CSV file per table, a PNG file per figure."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from randprune.atomic import write_file
from randprune.report.document import Report
from randprune.report.html import render
from randprune.report.latex import to_latex


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """The files that were written."""

    html: Path
    csv: tuple[Path, ...]
    png: tuple[Path, ...]
    tex: tuple[Path, ...] = ()


def write_files(report: Report, out: str | os.PathLike[str]) -> ReportPaths:
    """Write a report's page, tables and figures to a folder, or beside a page named *.html.

    Figures need the extra `randprune[figures]` and are left out without it.

    Raises:
        StorageError: `out` cannot be written.
    """
    target = Path(out)
    is_page = target.suffix.lower() in (".html", ".htm")
    folder, name = (target.parent, target.name) if is_page else (target, "report.html")
    return ReportPaths(
        _write_text(folder / name, render(report.page)),
        tuple(_write_text(folder / "tables" / f"{t.id}.csv", t.to_csv()) for t in report.csv),
        _write_figures(report, folder / "figures"),
        tuple(_write_text(folder / "tables" / f"{t.id}.tex", to_latex(t)) for t in report.latex),
    )


def figures_can_be_written() -> bool:
    """Whether matplotlib, which draws the PNG files, is installed: it is an extra."""
    return find_spec("matplotlib") is not None


def _write_figures(report: Report, folder: Path) -> tuple[Path, ...]:
    if not figures_can_be_written():
        return ()
    # matplotlib takes half a second to import, which only those who write figures should wait for.
    from randprune.report.png import to_png

    return tuple(
        write_file(folder / f"{chart.id}.png", to_png(chart)) for chart in report.page.charts
    )


def _write_text(path: Path, text: str) -> Path:
    # Names from the file system may hold what UTF-8 cannot encode.
    return write_file(path, text.encode("utf-8", "replace"))
