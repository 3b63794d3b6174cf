"""What the commands print, and where: results to standard output, all else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

# Where output is piped, rows are kept whole up to this many columns.
_PIPED_WIDTH = 120


def output() -> Console:
    """The console for results."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False)


def messages() -> Console:
    """The console for progress, hints and errors."""
    return Console(
        stderr=True, width=None if sys.stderr.isatty() else _PIPED_WIDTH, highlight=False
    )


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def print_error(message: str) -> None:
    """`error: message` on standard error, in one line that terminals wrap and pipes do not."""
    text = " ".join(message.split())
    messages().print(f"[bold red]error:[/] {escape(text)}", soft_wrap=not sys.stderr.isatty())


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Table:
    """A plain table; a column whose title starts with ">" is set flush right.

    Texts are printed as they are: square brackets are no markup.
    """
    grid = Table(
        title=escape(title) or None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for column in columns:
        right = column.startswith(">")
        grid.add_column(
            escape(column.removeprefix(">")),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
        )
    for row in rows:
        grid.add_row(*(escape(cell) for cell in row))
    return grid
