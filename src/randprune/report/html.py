"""A page as one HTML file that needs nothing else.

The template escapes every text that comes from a run, and a content security policy keeps the page
from loading anything at all. Figures are drawn by the basic bundle of plotly.js (MIT, see
`assets/plotly-basic.LICENSE.txt`), which has the marks that are used here and a quarter of the
weight.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from randprune.report.document import Block, Page
from randprune.report.plotly_chart import to_plotly
from randprune.report.table import Column, Table, row_anchor


def render(page: Page) -> str:
    """The page as one HTML document."""
    charts = {chart.id: to_plotly(chart) for chart in page.charts}
    return _environment().get_template("page.html").render(page=page, charts=charts)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("randprune.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.globals["asset"] = _asset
    environment.filters.update(kind=_kind, shown=_shown, anchors=_anchors, variable=_variable)
    return environment


@cache
def _asset(name: str) -> Markup:
    """A file of the package, which is trusted as it is."""
    return Markup((files("randprune.report") / "assets" / name).read_text(encoding="utf-8"))


def _kind(block: Block) -> str:
    return type(block).__name__


def _shown(table: Table) -> list[tuple[int, Column]]:
    """Positions and columns of what a page shows of a table."""
    return [(i, column) for i, column in enumerate(table.columns) if column.shown != "csv"]


def _anchors(table: Table) -> list[tuple[str, bool]]:
    """Of each row the anchor of its group, "" without, and whether it is the first of the group."""
    seen: set[str] = set()
    found = []
    for group in table.groups or ("",) * len(table.rows):
        found.append((row_anchor(table.id, group) if group else "", group not in seen))
        seen.add(group)
    return found


def _variable(tone: str) -> str:
    """A tone as part of a CSS variable's name: letters, digits and underscores only."""
    return "".join(
        letter for letter in tone if (letter.isalnum() and letter.isascii()) or letter == "_"
    )
