"""The page shell: sections of tables, charts and texts as one HTML file that needs nothing else.

It knows nothing of runs or benchmarks; `page.py` says what goes in. Everything is escaped here and
nowhere else, and a content security policy keeps the page from loading anything at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Literal

from randprune.report.chart import Chart
from randprune.report.plotly_chart import to_plotly
from randprune.report.table import Cell, Column, Table, row_anchor

_LONG = 40

Tone = Literal["good", "busy", "warn", "bad", "plain"]

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)


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


def render(page: Page) -> str:
    """The page as one HTML document."""
    charts = [b for section in page.sections for b in section.blocks if isinstance(b, Chart)]
    navigation = "".join(
        f'<li><a href="#{escape(s.id)}">{escape(s.title)}</a></li>' for s in page.sections
    )
    word, tone = page.status
    tiles = "".join(
        f"<div><dt>{escape(t.label)}</dt><dd>{escape(t.value)}"
        f"{f'<small>{escape(t.note)}</small>' if t.note else ''}</dd></div>"
        for t in page.tiles
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="randprune">
<title>{escape(page.title)}</title>
<style>{_asset("page.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the results</a>
<header>
<p class="kicker"><span>{escape(page.kicker)}</span> <span class="chip {tone}">{escape(word)}</span>
</p>
<h1>{escape(page.headline)}</h1>
{f'<dl class="tiles">{tiles}</dl>' if tiles else ""}
</header>
<nav aria-label="Sections"><ul>{navigation}</ul></nav>
<main id="main">
{"".join(_block(notice) for notice in page.notices)}
{"".join(_section(section) for section in page.sections)}
</main>
<footer>{escape(page.footer)}</footer>
<noscript><p class="notice warn">The figures need JavaScript, which runs inside this file only;
their data are in the tables under them.</p></noscript>
{_scripts(charts)}
</body>
</html>
"""


def _scripts(charts: list[Chart]) -> str:
    figures = {chart.id: to_plotly(chart) for chart in charts}
    # "<" inside a script element could end it, so none is left in the data.
    data = json.dumps(figures, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    plotly = f"<script>{_plotly_js()}</script>" if charts else ""
    return (
        f'<script type="application/json" id="charts">{data}</script>{plotly}'
        f"<script>{_asset('page.js')}</script>"
    )


@cache
def _plotly_js() -> str:
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


@cache
def _asset(name: str) -> str:
    return (files("randprune.report") / "assets" / name).read_text(encoding="utf-8")


def _section(section: Section) -> str:
    blocks = "".join(_block(block) for block in section.blocks)
    identifier = escape(section.id)
    return (
        f'<section id="{identifier}" aria-labelledby="{identifier}-title">'
        f'<h2 id="{identifier}-title">{escape(section.title)}</h2>'
        f'<div class="blocks">{blocks}</div></section>'
    )


def _block(block: Block) -> str:
    if isinstance(block, Chart):
        return _chart(block)
    if isinstance(block, Table):
        return f'<div class="card wide">{_table(block)}</div>'
    if isinstance(block, Folded):
        caption = escape(block.table.caption)
        return (
            f'<details class="card wide"><summary>{caption}'
            f' <span class="count">{len(block.table.rows):,}</span></summary>'
            f"{_table(block.table, caption=False)}</details>"
        )
    if isinstance(block, Facts):
        items = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
            for name, value in block.items.items()
        )
        wide = " wide" if block.wide else ""
        return f'<div class="card facts{wide}"><h3>{escape(block.title)}</h3><dl>{items}</dl></div>'
    if isinstance(block, Code):
        return (
            f'<div class="card code wide"><h3>{escape(block.title)}</h3>'
            f'<button type="button" class="copy">Copy</button>'
            f'<pre tabindex="0"><code>{escape(block.text)}</code></pre></div>'
        )
    notice = "wide" if block.tone == "plain" else f"wide notice {block.tone}"
    return f'<p class="{notice}">{escape(block.text)}</p>'


def _chart(chart: Chart) -> str:
    identifier, text = escape(chart.id), escape(chart.text)
    data = ""
    if chart.data is not None and chart.data.rows:
        data = f"<details><summary>Data</summary>{_table(chart.data, caption=False)}</details>"
    return (
        f'<figure class="card{" wide" if chart.wide else ""}" id="figure-{identifier}">'
        f"<figcaption><h3>{escape(chart.title)}</h3><p>{text}</p></figcaption>"
        f'<div class="plot" data-chart="{identifier}" role="img" aria-label="{text}" '
        f'style="min-height:{chart.height}px"></div><div class="under">{data}</div></figure>'
    )


def _table(table: Table, *, caption: bool = True) -> str:
    shown = [i for i, column in enumerate(table.columns) if column.shown != "csv"]
    columns = [table.columns[i] for i in shown]
    head = "".join(_heading(column) for column in columns)
    body = "".join(
        f"<tr{anchor}>{''.join(_cell(row[i], table.columns[i], i == shown[0]) for i in shown)}</tr>"
        for row, anchor in zip(table.rows, _anchors(table), strict=True)
    )
    foot = ""
    if table.total:
        cells = "".join(_cell(table.total[i], table.columns[i], i == shown[0]) for i in shown)
        foot = f"<tfoot><tr>{cells}</tr></tfoot>"
    title = escape(table.caption)
    named = (
        f"<caption>{title}</caption>" if caption else f'<caption class="hidden">{title}</caption>'
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    # A focusable region, so that a wide table can be scrolled with the keyboard.
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{title}">'
        f'<table data-name="{escape(table.id)}">{named}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody>{foot}</table></div>{note}"
    )


def _heading(column: Column) -> str:
    title = escape(column.title or column.name)
    hint = f"<small>{escape(column.hint)}</small>" if column.hint else ""
    numeric = ' class="number"' if column.numeric else ""
    return (
        f'<th scope="col"{numeric}><button type="button">{title}'
        f'<span class="arrow" aria-hidden="true"></span></button>{hint}</th>'
    )


def _cell(cell: Cell, column: Column, is_head: bool) -> str:
    value = "" if cell.value is None else f' data-v="{escape(str(cell.value))}"'
    # A remark keeps a width that can be read, however many columns stand before it.
    kind = "number" if column.numeric else "long" if len(cell.text) > _LONG else ""
    classes = f' class="{kind}"' if kind else ""
    note = f"<small>{escape(cell.note)}</small>" if cell.note else ""
    tag = 'th scope="row"' if is_head else "td"
    text = escape(cell.text)
    if cell.link:
        text = f'<a href="#{escape(cell.link)}">{text}</a>'
    if cell.tone:
        mark = f'<i class="mark" style="--c:var(--{_name(cell.tone)})"></i>'
        text = f'<span class="named">{mark}{text}</span>'
    return f"<{tag}{classes}{value}>{text}{note}</{tag.split()[0]}>"


def _anchors(table: Table) -> list[str]:
    """Attributes of each row: the name of its group, and the anchor at the group's first row."""
    if not table.groups:
        return [""] * len(table.rows)
    seen: set[str] = set()
    found = []
    for group in table.groups:
        anchor = escape(row_anchor(table.id, group))
        found.append(f' data-group="{anchor}"' + ("" if group in seen else f' id="{anchor}"'))
        seen.add(group)
    return found


def _name(tone: str) -> str:
    """A tone as part of a CSS variable's name: letters, digits and underscores only."""
    return "".join(
        letter for letter in tone if (letter.isalnum() and letter.isascii()) or letter == "_"
    )
