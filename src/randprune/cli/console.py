"""What the commands print, and where: results to standard output, all else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

# Where output is piped, rows are kept whole up to this many columns.
_PIPED_WIDTH = 120
# Between columns; and what a column of texts keeps of its longest word before words are folded.
_GAP, _FOLDED = 2, 16


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


def print_lines(lines: Iterable[str], head: str = "") -> None:
    """Lines on standard output, after a bold head; a terminal breaks them between words."""
    text = Text.assemble((head, "bold"), "\n".join(lines))
    output().print(text, soft_wrap=not sys.stdout.isatty())


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows of texts: a plain table, or where it does not fit, a block of lines for each row.

    Numbers (columns whose title starts with ">") are set flush right and never broken; texts are
    folded. They are printed as they are: square brackets are no markup.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [self._least(i) for i in range(len(self.columns))]
        if sum(widths) + _GAP * (len(widths) - 1) <= options.max_width:
            yield self._grid(widths)
        else:
            yield from self._blocks()

    def _least(self, column: int) -> int:
        """The cells that a column needs at least."""
        texts = [self.columns[column].removeprefix(">"), *(row[column] for row in self.rows)]
        if self.columns[column].startswith(">"):
            return max(cell_len(line) for text in texts for line in text.split("\n"))
        longest = max((cell_len(word) for text in texts for word in text.split()), default=0)
        return min(longest, _FOLDED)

    def _grid(self, widths: Sequence[int]) -> Table:
        grid = Table(
            title=escape(self.title) or None,
            title_justify="left",
            title_style="bold",
            header_style="bold",
            box=None,
            pad_edge=False,
            padding=(0, _GAP, 0, 0),
        )
        for column, width in zip(self.columns, widths, strict=True):
            right = column.startswith(">")
            grid.add_column(
                escape(column.removeprefix(">")),
                justify="right" if right else "left",
                no_wrap=right,
                min_width=width,
                overflow="fold",
            )
        for row in self.rows:
            grid.add_row(*(escape(cell) for cell in row))
        return grid

    def _blocks(self) -> Iterator[Text]:
        if self.title:
            yield Text(self.title, style="bold")
        titles = [column.removeprefix(">").replace("\n", ", ") for column in self.columns]
        for number, row in enumerate(self.rows):
            if number:
                yield Text()
            for title, cell in zip(titles, row, strict=True):
                yield Text.assemble((f"{title}: ", "bold"), cell, overflow="fold")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Listing:
    """Rows under columns; a column whose title starts with ">" holds numbers, set flush right."""
    return Listing(tuple(columns), tuple(tuple(row) for row in rows), title)
