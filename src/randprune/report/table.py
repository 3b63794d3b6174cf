"""A table as data: the page shows its texts, a CSV file holds its values."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

Value = str | int | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """`name` heads the CSV column, `title` the one on the page; numbers are set flush right.

    `shown`: "page", "csv" or "both". `hint`: a short line under the title.
    """

    name: str
    title: str = ""
    numeric: bool = False
    shown: str = "both"
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """`text` for people, `value` for sorting and CSV, `note` a second, quieter line.

    `tone`: "" or a role whose colour marks the cell, as in the figures.
    """

    text: str
    value: Value = None
    note: str = ""
    tone: str = ""


EMPTY = Cell("–")


@dataclass(frozen=True, slots=True)
class Table:
    """`id` names the CSV file and the anchor; `note` is printed under the table."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    total: tuple[Cell, ...] = ()

    def __post_init__(self) -> None:
        for row in (*self.rows, *((self.total,) if self.total else ())):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Table {self.id!r} has {len(self.columns)} columns, a row {len(row)} cells."
                )

    def to_csv(self) -> str:
        """The rows as CSV (RFC 4180): floats with all their digits, missing values empty."""
        out = io.StringIO()
        writer = csv.writer(out)
        wanted = [i for i, column in enumerate(self.columns) if column.shown != "page"]
        writer.writerow([self.columns[i].name for i in wanted])
        for row in self.rows:
            writer.writerow([_raw(row[i]) for i in wanted])
        return out.getvalue()


def _raw(cell: Cell) -> Value:
    if cell.value is not None:
        return cell.value
    return "" if cell == EMPTY else cell.text
