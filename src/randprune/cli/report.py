"""`randprune report`: the report of a run, also of one that is still going on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from randprune.cli import options
from randprune.cli.console import messages, output, print_json, table

if TYPE_CHECKING:
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
    from randprune.report import RunRecord, summary, write_report

    record = RunRecord.load(out)
    with messages().status("Writing the report ..."):
        paths = write_report(record, to or out)
    if json:
        print_json(
            {
                **summary(record),
                "report": str(paths.html),
                "tables": [str(path) for path in paths.csv],
                "figures": [str(path) for path in paths.png],
            }
        )
        return
    print_results(record)
    output().print(
        f"\nReport: {paths.html}\n"
        f"Tables: {len(paths.csv)} CSV files in {paths.html.parent / 'tables'}\n"
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
