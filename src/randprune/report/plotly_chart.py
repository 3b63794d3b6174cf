"""Charts as Plotly figures in plain JSON data, for the page's script to draw.

Colours stay names behind an "@" ("@searched", with opacity "@searched/0.2"): the script puts in the
values of the reader's colour scheme, and does so again when that changes.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from randprune.report.chart import Axis, Band, Bars, Chart, Line, Mark, Points, Rule, Zone

Json = dict[str, Any]

_SYMBOLS = {
    "circle": "circle",
    "diamond": "diamond",
    "square": "square",
    "triangle": "triangle-up",
    "star": "star",
    "tick": "line-ns",
    "dash": "line-ew",
}


def to_plotly(chart: Chart) -> Json:
    """The chart as {"data": [...], "layout": {...}}; texts are escaped, nothing is loaded."""
    data: list[Json] = []
    shapes: list[Json] = []
    for mark in chart.marks:
        if isinstance(mark, Rule):
            shapes.append(_rule(mark))
        elif isinstance(mark, Zone):
            shapes.append(_zone(mark))
        else:
            data.extend(_traces(mark, chart))
    layout: Json = {
        "height": chart.height,
        "xaxis": _axis(chart.x, _values(chart, "x")),
        "yaxis": _axis(chart.y, _values(chart, "y")),
        "barmode": "overlay",
        "hovermode": "closest",
        "showlegend": len(chart.marks) > 1,
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 12},
        },
        "margin": {"l": 12, "r": 12, "t": 8, "b": 8},
        "shapes": shapes,
    }
    return {"data": data, "layout": layout}


def _values(chart: Chart, letter: str) -> list[float]:
    """All numbers along an axis, of points, lines and bars."""
    marks = [mark for mark in chart.marks if isinstance(mark, (Points, Line, Bars))]
    return [float(v) for mark in marks for v in getattr(mark, letter) if not isinstance(v, str)]


def _axis(axis: Axis, values: Sequence[float]) -> Json:
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    layout: Json = {
        "title": {"text": _text(axis.title), "standoff": 8, "font": {"size": 13}},
        "type": axis.kind,
        "automargin": True,
        "zeroline": False,
        "gridcolor": "@grid",
        "linecolor": "@line",
        "tickcolor": "@line",
    }
    if axis.kind == "category":
        layout["tickfont"] = {"size": 11}
        if axis.order:
            # Half a place of room at both ends: the autorange leaves none of it for few names.
            ends = [-0.6, len(axis.order) - 0.4]
            layout.update(categoryorder="array", categoryarray=_names(axis.order))
            layout["range"] = ends if axis.title else ends[::-1]
        if not axis.title:  # names down the side, the first on top
            layout.update({} if axis.order else {"autorange": "reversed"})
            layout["tickfont"] = {"size": 13}
    elif axis.percent:
        layout["tickformat"] = ".3~%"
    elif axis.kind == "log":
        layout.update(tickformat="~s", tickangle=0, nticks=6)
        # Of few decades 1, 2 and 5 are labelled: all nine digits run into each other.
        layout.update({"dtick": "D2"} if axis.whole or high < 50 * low else {})
    elif axis.large:
        layout["tickformat"] = "~s"
    elif axis.whole:
        layout.update(tickformat=",d", **({"dtick": 1} if high - low <= 12 else {}))
    if axis.span is not None:
        layout["range"] = list(axis.span)
    return layout


def _traces(mark: Mark, chart: Chart) -> Iterable[Json]:
    name = _text(mark.name)
    if isinstance(mark, Band):
        edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "type": "scatter"}
        group = f"band:{mark.name}"
        yield {
            **edge,
            "x": list(mark.x),
            "y": list(mark.low),
            "legendgroup": group,
            "showlegend": False,
        }
        yield {
            **edge,
            "x": list(mark.x),
            "y": list(mark.high),
            "fill": "tonexty",
            "fillcolor": f"@{mark.color}/0.18",
            "legendgroup": group,
            "name": name,
        }
    elif isinstance(mark, Line):
        yield {
            "type": "scatter",
            "mode": "lines+markers" if mark.markers else "lines",
            "name": name,
            "showlegend": mark.legend,
            "x": list(mark.x),
            "y": list(mark.y),
            "line": {
                "color": f"@{mark.color}",
                "width": mark.width,
                "dash": "dot" if mark.dashed else "solid",
                "shape": "hv" if mark.step else "linear",
            },
            "marker": {"size": 7},
            **_labels(mark.labels),
            "hovertemplate": _hover(chart, mark.labels),
        }
    elif isinstance(mark, Bars):
        along, across = list(mark.x), list(mark.y)
        yield {
            "type": "bar",
            "name": name,
            "orientation": "h" if mark.horizontal else "v",
            "x": across if mark.horizontal else _names(along),
            "y": _names(along) if mark.horizontal else across,
            "marker": {"color": f"@{mark.color}", "line": {"width": 0}},
            **({} if mark.width is None else {"width": mark.width}),
            **_labels(mark.labels),
            "hovertemplate": _hover(chart, mark.labels),
            "textposition": "none",
        }
    elif isinstance(mark, Points):
        line_symbol = mark.symbol in ("tick", "dash")
        yield {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "showlegend": mark.legend,
            "x": _names(mark.x),
            "y": _names(mark.y),
            "marker": {
                "symbol": _SYMBOLS[mark.symbol] + ("-open" if mark.hollow else ""),
                "color": f"@{mark.color}",
                "size": mark.size,
                "line": {
                    "color": f"@{mark.color}" if line_symbol or mark.hollow else "@card",
                    "width": 2 if line_symbol or mark.hollow else 0.75,
                },
            },
            **_errors(mark),
            **_labels(mark.labels),
            "hovertemplate": _hover(chart, mark.labels),
        }


def _errors(mark: Points) -> Json:
    if not mark.high:
        return {}
    values = [float(value) for value in (mark.x if mark.horizontal else mark.y)]
    return {
        "error_x" if mark.horizontal else "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [high - value for high, value in zip(mark.high, values, strict=True)],
            "arrayminus": [value - low for low, value in zip(mark.low, values, strict=True)],
            "color": f"@{mark.color}",
            "thickness": 1.5,
            "width": 4,
        }
    }


def _rule(mark: Rule) -> Json:
    across, along = ("y", "x") if mark.horizontal else ("x", "y")
    return {
        "type": "line",
        f"{across}ref": across,
        f"{along}ref": "paper",
        f"{across}0": mark.value,
        f"{across}1": mark.value,
        f"{along}0": 0,
        f"{along}1": 1,
        "line": {"color": f"@{mark.color}", "width": 2, "dash": "dash" if mark.dashed else "solid"},
        "name": _text(mark.name),
        "showlegend": True,
    }


def _zone(mark: Zone) -> Json:
    return {
        "type": "rect",
        "layer": "below",
        "xref": "x",
        "yref": "paper",
        "x0": mark.low,
        "x1": mark.high,
        "y0": 0,
        "y1": 1,
        "fillcolor": f"@{mark.color}/0.16",
        "line": {"width": 0},
        "name": _text(mark.name),
        "showlegend": True,
    }


def _labels(labels: Sequence[str]) -> Json:
    return {"text": [_text(label) for label in labels]} if labels else {}


def _hover(chart: Chart, labels: Sequence[str]) -> str:
    lines = ["%{text}"] if labels else []
    for letter, axis in (("x", chart.x), ("y", chart.y)):
        if axis.kind == "category":
            lines.append(f"%{{{letter}}}")
        else:
            shape = (
                ":.2%"
                if axis.percent
                else ":,d"
                if axis.whole
                else ":.4s"
                if axis.large
                else ":.4~g"
            )
            lines.append(f"{_text(axis.title)}: %{{{letter}{shape}}}")
    return "<br>".join(lines) + "<extra></extra>"


def _names(values: Sequence[float | int | str]) -> list[float | int | str]:
    return [_text(value) if isinstance(value, str) else value for value in values]


def _text(text: str) -> str:
    # Plotly reads a little HTML (bold, links) in every text: show users' names as they are.
    return html.escape(text, quote=False)
