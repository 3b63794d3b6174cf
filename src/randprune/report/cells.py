"""Cells that several tables share."""

from __future__ import annotations

from randprune.report.format import number, percent, si
from randprune.report.table import EMPTY, Cell


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
