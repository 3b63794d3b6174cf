"""`randprune report`: the report of a run, also of one that is still going on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from randprune.cli import options
from randprune.cli.console import messages, output, print_json, table

if TYPE_CHECKING:
    from randprune.bench.records import BenchRun
    from randprune.report import RunRecord
    from randprune.report.table import Cell, Column, Table


def report(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The output folder of a run.", show_default=False)
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="PATH",
            help="Where the report goes: a folder, or a name that ends in .html.",
            show_default="OUT",
        ),
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write the report of a run: one HTML page that opens offline, CSV tables and PNG figures.

    Works while the run goes on and after it failed, too.
    """
    from randprune.bench.records import BenchRun
    from randprune.report import open_run, summary, write_report
    from randprune.report.bench import bench_summary

    record = open_run(out)
    with messages().status("Writing the report ..."):
        paths = write_report(record, to or out)
    if json:
        found = bench_summary(record) if isinstance(record, BenchRun) else summary(record)
        print_json(
            {
                **found,
                "report": str(paths.html),
                "tables": [str(path) for path in (*paths.csv, *paths.tex)],
                "figures": [str(path) for path in paths.png],
            }
        )
        return
    if isinstance(record, BenchRun):
        print_benchmark(record)
    else:
        print_results(record)
    latex = f", {len(paths.tex)} of them also for LaTeX," if paths.tex else ""
    output().print(
        f"\nReport: {paths.html}\n"
        f"Tables: {len(paths.csv)} CSV files{latex} in {paths.html.parent / 'tables'}\n"
        f"Figures: {len(paths.png)} PNG files in {paths.html.parent / 'figures'}",
        soft_wrap=True,
    )


def print_results(record: RunRecord) -> None:
    """The result in a sentence, and the networks side by side."""
    from randprune.report import headline
    from randprune.report.networks import results

    console = output()
    console.print(headline(record), markup=False)
    networks = results(record)
    if networks is not None:
        console.print()
        console.print(as_text(networks))


def print_benchmark(run: BenchRun) -> None:
    """What a benchmark says in a sentence, and its leaderboard."""
    from randprune.report.bench import leaderboard_of

    console = output()
    sentence, leaderboard = leaderboard_of(run)
    console.print(sentence, markup=False)
    if leaderboard is not None:
        console.print()
        names = ("name", "test_top1", "difference", "verdict", "before", "candidates", "compute")
        kept = [i for i, column in enumerate(leaderboard.columns) if column.name in names]
        columns = [leaderboard.columns[i] for i in kept]
        console.print(
            table(
                [(">" if c.numeric else "") + (c.title or c.name) for c in columns],
                [
                    [_with_interval(row[i], leaderboard.columns[i]) for i in kept]
                    for row in leaderboard.rows
                ],
            )
        )


def _with_interval(cell: Cell, column: Column) -> str:
    """A cell as the terminal shows it: numbers that lead to records come with their interval."""
    interval = cell.note.partition("\n")[0]
    shown = column.numeric and cell.link and interval[-1:].isdigit()
    return f"{cell.text} ({interval})" if shown else cell.text


def as_text(page_table: Table) -> object:
    """A report's table, narrow enough for a terminal: costs as shares of the dense network's."""
    shown = [
        i
        for i, column in enumerate(page_table.columns)
        if column.shown != "csv" and column.name != "size"
    ]
    return table(
        [_heading(page_table.columns[i]) for i in shown],
        [[_text(row[i], page_table.columns[i]) for i in shown] for row in page_table.rows],
    )


def _heading(column: Column) -> str:
    hint = column.hint.replace(", ", "\n") if column.name.startswith("test_") else ""
    title = column.title.replace("Test accuracy", "Accuracy").replace("Parameters", "Params")
    return (">" if column.numeric else "") + title + (f"\n{hint}" if hint else "")


def _text(cell: Cell, column: Column) -> str:
    share = cell.note.partition("\n")[0]
    return share if column.name in ("macs", "params") and share.endswith("%") else cell.text
