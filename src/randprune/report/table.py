"""A table as data: the page shows its texts, a CSV file holds its values."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace

from randprune.report.format import number, percent, si

Value = str | int | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """`name` heads the CSV column, `title` the one on the page; numbers are set flush right.

    `shown`: "page", "csv" or "both". `hint`: a short line under the title. `minor` columns are left
    out on narrow screens until the reader asks for them.
    """

    name: str
    title: str = ""
    numeric: bool = False
    shown: str = "both"
    hint: str = ""
    minor: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """`text` for people, `value` for sorting and CSV, `note` a second, quieter line.

    `tone`: "" or a role whose colour marks the cell, as in the figures. `link`: "" or the anchor
    on the page that the text leads to, see `row_anchor`.
    """

    text: str
    value: Value = None
    note: str = ""
    tone: str = ""
    link: str = ""


EMPTY = Cell("–")


@dataclass(frozen=True, slots=True)
class Table:
    """`id` names the CSV file and the anchor; `note` is printed under the table.

    `groups`: () or one name a row. Links lead to all rows of a group.
    """

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    total: tuple[Cell, ...] = ()
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.groups and len(self.groups) != len(self.rows):
            raise ValueError(
                f"Table {self.id!r} has {len(self.rows)} rows, but {len(self.groups)} groups."
            )
        for row in (*self.rows, *((self.total,) if self.total else ())):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Table {self.id!r} has {len(self.columns)} columns, a row {len(row)} cells."
                )

    def without_empty(self) -> Table:
        """The same table with the columns in which nothing stands in the CSV file only."""
        empty = [
            bool(self.rows) and all(row[i] == EMPTY for row in self.rows)
            for i in range(len(self.columns))
        ]
        columns = tuple(
            replace(column, shown="csv") if hide and column.shown == "both" else column
            for column, hide in zip(self.columns, empty, strict=True)
        )
        return replace(self, columns=columns)

    def to_csv(self) -> str:
        """The rows as CSV (RFC 4180): floats with all their digits, missing values empty."""
        out = io.StringIO()
        writer = csv.writer(out)
        wanted = [i for i, column in enumerate(self.columns) if column.shown != "page"]
        writer.writerow([self.columns[i].name for i in wanted])
        for row in self.rows:
            writer.writerow([_raw(row[i]) for i in wanted])
        return out.getvalue()


def amount(value: float | None, dense: float | None = None, *, flops: bool = False) -> Cell:
    """A count with an SI prefix, its share of the dense one, and as FLOPs (two per MAC)."""
    if value is None:
        return EMPTY
    notes = [f"{percent(value / dense)}"] if dense else []
    notes += [f"{si(2 * value)} FLOPs"] if flops else []
    return Cell(si(value), value, "\n".join(notes))


def plain(value: float | bool | None) -> Cell:
    """A number as it is."""
    if value is None:
        return EMPTY
    return Cell(number(value), int(value) if isinstance(value, bool) else value)


def share(value: float | None, note: str = "") -> Cell:
    """A share as per cent with two decimals."""
    return EMPTY if value is None else Cell(percent(value, 2), value, note)


def said(text: str) -> Cell:
    """A text, or that there is none."""
    return Cell(text) if text else EMPTY


def row_anchor(table_id: str, group: str) -> str:
    """The anchor of a table's rows of this group, without the "#"."""
    return f"{table_id}-{group}"


def _raw(cell: Cell) -> Value:
    if cell.value is not None:
        return cell.value
    return "" if cell == EMPTY else cell.text
