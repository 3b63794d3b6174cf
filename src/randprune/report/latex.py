"""Tables as LaTeX for papers: booktabs, no vertical lines, intervals beside the numbers."""

from __future__ import annotations

from randprune.report.table import EMPTY, Cell, Column, Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\u00a0": "~",
    "\u2212": "$-$",
    "–": "--",
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "µ": r"\textmu{}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
}


def to_latex(table: Table) -> str:
    r"""The table's page columns as a `tabular` that needs ``\usepackage{booktabs}`` only.

    The first line of a cell's note, such as its interval, follows in brackets, but for names.
    """
    shown = [i for i, column in enumerate(table.columns) if column.shown != "csv"]
    columns = [table.columns[i] for i in shown]
    lines = [
        f"% {line}".rstrip() for line in (table.caption, *table.note.splitlines()) if line.strip()
    ]
    lines += [
        r"\begin{tabular}{" + "".join("r" if c.numeric else "l" for c in columns) + "}",
        r"\toprule",
        " & ".join(_heading(column) for column in columns) + r" \\",
        r"\midrule",
    ]
    lines += [_row(row, shown) + r" \\" for row in table.rows]
    if table.total:
        lines += [r"\midrule", _row(table.total, shown) + r" \\"]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def escape(text: str) -> str:
    """Text as LaTeX sets it letter by letter."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _heading(column: Column) -> str:
    return escape(f"{column.title or column.name}" + (f" ({column.hint})" if column.hint else ""))


def _row(row: tuple[Cell, ...], shown: list[int]) -> str:
    first, *others = (row[i] for i in shown)
    return " & ".join([escape(first.text), *map(_cell, others)])


def _cell(cell: Cell) -> str:
    if cell == EMPTY:
        return "--"
    note = cell.note.partition("\n")[0]
    return escape(f"{cell.text} ({note})" if note else cell.text)
