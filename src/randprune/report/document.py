"""A report as data, before any HTML: sections of blocks, the same for every kind of run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from randprune.report.chart import Chart
from randprune.report.table import Table

Tone = Literal["good", "busy", "warn", "bad", "plain"]


@dataclass(frozen=True, slots=True)
class Tile:
    """One key figure at the top of the page."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; with a `tone` it is set off as a notice."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Code:
    """Text to copy, as it is."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, side by side; `wide` ones take the full width."""

    title: str
    items: Mapping[str, str]
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Folded:
    """A table behind a line to click, for what only some readers want."""

    table: Table


Block = Table | Chart | Text | Code | Facts | Folded


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with a place in its navigation."""

    id: str
    title: str
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, id: str, title: str, *blocks: Block | None) -> Section:
        """A section of what there is: no blocks that are None, no tables or facts without rows."""
        return cls(id, title, tuple(block for block in blocks if block is not None and _any(block)))


def _any(block: Block) -> bool:
    if isinstance(block, Folded):
        return bool(block.table.rows)
    if isinstance(block, Table):
        return bool(block.rows)
    return bool(block.items) if isinstance(block, Facts) else True


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page. `status` is a word and its tone; `notices` stand above everything else."""

    title: str
    kicker: str
    headline: str
    status: tuple[str, Tone]
    sections: tuple[Section, ...]
    tiles: tuple[Tile, ...] = ()
    notices: tuple[Text, ...] = ()
    footer: str = ""

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Its figures, from top to bottom."""
        return tuple(b for section in self.sections for b in section.blocks if isinstance(b, Chart))


@dataclass(frozen=True, slots=True)
class Report:
    """What is written of a run.

    Attributes:
        page: with all figures, which are written as PNG files too.
        csv: tables that are written as CSV files; on the page or not.
        latex: those of them that are written for papers, too.
        summary: the result as JSON-ready data, for scripts.
        results: the table that terminals show under the headline.
    """

    page: Page
    csv: tuple[Table, ...]
    summary: Mapping[str, object]
    results: Table | None = None
    latex: tuple[Table, ...] = ()

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        return self.page.headline


def present(tables: Iterable[Table | None]) -> tuple[Table, ...]:
    """The tables that have rows."""
    return tuple(table for table in tables if table is not None and table.rows)
