"""`randprune report`: the report of a run, also of one that is still going on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from randprune.cli import options
from randprune.cli.console import messages, output, print_json, table

if TYPE_CHECKING:
    from randprune.report import Report
    from randprune.report.table import Cell, Column, Table


def report(
    out: options.RunFolder,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="PATH",
            help="Where the report goes: a folder, or a name that ends in .html.",
            show_default="OUT",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            "-b",
            metavar="SHARE",
            help="Of a job with several budgets, the page of this one, in a folder of its own.",
            show_default="the last one",
        ),
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write the report of a run: one HTML page that opens offline, CSV tables, PNG figures.

    Works while the run goes on and after it failed, too.
    """
    from randprune.report import open_run, report_of, write_report
    from randprune.report.write import figures_can_be_written

    with messages().status("Writing the report ..."):
        made = report_of(open_run(out, budget))
        own = out if budget is None else out / f"budget-{budget:g}"
        paths = write_report(made, to or own)
    if json:
        print_json(
            {
                **made.summary,
                "report": str(paths.html),
                "tables": [str(path) for path in (*paths.csv, *paths.tex)],
                "figures": [str(path) for path in paths.png],
            }
        )
        return
    print_report(made)
    figures = f"{len(paths.png)} PNG files in {paths.html.parent / 'figures'}"
    if not figures_can_be_written():
        figures = "not written, since they need matplotlib: pip install 'randprune[figures]'"
    latex = f", {len(paths.tex)} of them also for LaTeX," if paths.tex else ""
    output().print(
        f"\nReport: {paths.html}\n"
        f"Tables: {len(paths.csv)} CSV files{latex} in {paths.html.parent / 'tables'}\n"
        f"Figures: {figures}",
        markup=False,
        soft_wrap=True,
    )


def print_report(made: Report) -> None:
    """The result in a sentence, and the table under it."""
    console = output()
    console.print(made.headline, markup=False)
    if made.results is not None:
        console.print()
        console.print(as_text(made.results))


def as_text(page_table: Table) -> object:
    """A report's table, narrow enough for a terminal."""
    leaderboard = page_table.id == "leaderboard"
    shown = [
        i
        for i, column in enumerate(page_table.columns)
        if (column.name in _OF_LEADERBOARD if leaderboard else _is_shown(column))
    ]
    cell = _with_interval if leaderboard else _text
    return table(
        [_heading(page_table.columns[i], leaderboard) for i in shown],
        [[cell(row[i], page_table.columns[i]) for i in shown] for row in page_table.rows],
    )


_OF_LEADERBOARD = ("name", "test_top1", "difference", "verdict", "before", "candidates", "compute")


def _is_shown(column: Column) -> bool:
    return column.shown != "csv" and column.name != "size"


def _heading(column: Column, leaderboard: bool) -> str:
    right = ">" if column.numeric else ""
    if leaderboard:
        return right + (column.title or column.name)
    hint = column.hint.replace(", ", "\n") if column.name.startswith("test_") else ""
    title = column.title.replace("Test accuracy", "Accuracy").replace("Parameters", "Params")
    return right + title + (f"\n{hint}" if hint else "")


def _with_interval(cell: Cell, column: Column) -> str:
    """A cell of a leaderboard: numbers that lead to records come with their interval."""
    interval = cell.note.partition("\n")[0]
    shown = column.numeric and cell.link and interval[-1:].isdigit()
    return f"{cell.text} ({interval})" if shown else cell.text


def _text(cell: Cell, column: Column) -> str:
    """A cell of another table: costs as shares of the dense network's."""
    share = cell.note.partition("\n")[0]
    return share if column.name in ("macs", "params") and share.endswith("%") else cell.text
