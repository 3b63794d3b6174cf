"""Charts as PNG files, drawn by matplotlib: it needs neither a browser nor a network.

Plotly's own export starts a Chrome browser, which a fresh machine does not have.
"""

from __future__ import annotations

import io
import logging
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from randprune.report.chart import Axis, Band, Bars, Chart, Line, Mark, Points, Rule, Zone
from randprune.report.format import tick
from randprune.report.palette import GRID, INK, LINE, PALETTE

_SYMBOLS = {
    "circle": "o",
    "diamond": "D",
    "square": "s",
    "triangle": "^",
    "star": "*",
    "tick": "|",
    "dash": "_",
}
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,  # a "$" in a layer's name is a dollar sign
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
}


def to_png(chart: Chart, dots_per_inch: int = 160) -> bytes:
    """The chart as a PNG file's bytes, 7.5 inches wide or 10 where it is a wide one."""
    with warnings.catch_warnings(), mpl.rc_context(_STYLE):
        # Names in scripts that the font lacks are drawn as boxes, which is all that can be done.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
        width = 10.0 if chart.wide else 7.5
        figure = Figure(figsize=(width, chart.height / 80 + 0.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _draw(chart, axes)
        figure.suptitle(chart.title, fontsize=12, fontweight="bold", x=0.01, ha="left")
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=dots_per_inch, metadata={"Software": "randprune"})
    return out.getvalue()


def _draw(chart: Chart, axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    _scale(axes.xaxis, chart.x)
    _scale(axes.yaxis, chart.y)
    horizontal = chart.y.kind == "category"
    if chart.x.kind == "category" or horizontal:
        _category_ticks(axes, chart, horizontal)
    for mark in chart.marks:
        _mark(axes, mark, chart)
    if chart.x.span is not None:
        axes.set_xlim(*chart.x.span)
    if chart.y.span is not None:
        axes.set_ylim(*chart.y.span)
    if horizontal:
        axes.margins(y=0.6 / max(len(_categories(chart)), 1))
        axes.invert_yaxis()
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    # matplotlib sorts by kind of mark; the page has them in the order drawn.
    names = list(dict.fromkeys(_legend_name(mark.name) for mark in chart.marks))
    if len(entries) > 1:
        axes.legend(
            [entries[name] for name in names if name in entries],
            [name for name in names if name in entries],
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=3,
            frameon=False,
            fontsize=8.5,
            borderaxespad=0.2,
        )


def _scale(axis: Any, spec: Axis) -> None:
    axis.set_label_text(spec.title)
    if spec.kind == "log":
        axis._set_axes_scale("log")
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(_tick))
        axis.set_minor_locator(NullLocator())
    elif spec.percent:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}\u00a0%"))
    elif spec.kind == "linear" and (spec.large or spec.whole):
        if spec.whole:
            axis.set_major_locator(MaxNLocator(integer=True))
        axis.set_major_formatter(FuncFormatter(_tick))


def _tick(value: float, _: int) -> str:
    return tick(value)


def _categories(chart: Chart) -> list[str]:
    """The names along the category axis, in the order in which marks bring them up."""
    names: dict[str, None] = dict.fromkeys((*chart.x.order, *chart.y.order))
    for mark in chart.marks:
        if isinstance(mark, (Points, Bars)):
            names.update({v: None for v in (*mark.x, *mark.y) if isinstance(v, str)})
    return list(names)


def _category_ticks(axes: Axes, chart: Chart, horizontal: bool) -> None:
    """Names at whole positions; of very many, every n-th, so that they can be read."""
    names = _categories(chart)
    step = 1 if horizontal else -(-len(names) // 45)
    positions = range(0, len(names), step)
    labels = [textwrap.shorten(names[i], 40, placeholder="…") for i in positions]
    if horizontal:
        axes.set_yticks(list(positions), labels)
    else:
        slanted = max((len(label) for label in labels), default=0) * len(labels) > 90
        axes.set_xticks(list(positions), labels, rotation=90 if slanted else 0)


def _positions(values: Sequence[float | int | str], chart: Chart) -> list[float]:
    names = {name: i for i, name in enumerate(_categories(chart))}
    return [names[value] if isinstance(value, str) else float(value) for value in values]


def _legend_name(name: str) -> str:
    # matplotlib leaves names with a leading underscore out of the legend.
    return f"\u200a{name}" if name.startswith("_") else name


def _mark(axes: Axes, mark: Mark, chart: Chart) -> None:
    color = PALETTE[mark.color]
    name = _legend_name(mark.name)
    if isinstance(mark, Band):
        axes.fill_between(mark.x, mark.low, mark.high, color=color, alpha=0.18, lw=0, label=name)
    elif isinstance(mark, Line):
        axes.plot(
            mark.x,
            mark.y,
            color=color,
            linewidth=0.72 * mark.width,
            linestyle=":" if mark.dashed else "-",
            marker="o" if mark.markers else None,
            markersize=4,
            drawstyle="steps-post" if mark.step else "default",
            label=name if mark.legend else None,
        )
    elif isinstance(mark, Rule):
        draw = axes.axhline if mark.horizontal else axes.axvline
        draw(mark.value, color=color, linewidth=1.6, ls="--" if mark.dashed else "-", label=name)
    elif isinstance(mark, Zone):
        axes.axvspan(mark.low, mark.high, color=color, alpha=0.16, lw=0, label=name)
    elif isinstance(mark, Bars):
        places, width = _positions(mark.x, chart), 0.8 if mark.width is None else mark.width
        if mark.horizontal:
            axes.barh(places, mark.y, height=width, color=color, label=name)
        else:
            axes.bar(places, mark.y, width=width, color=color, label=name)
    else:
        _points(axes, mark, chart, name, color)


def _points(axes: Axes, mark: Points, chart: Chart, name: str, color: str) -> None:
    x, y = _positions(mark.x, chart), _positions(mark.y, chart)
    if mark.high:
        values = x if mark.horizontal else y
        below = [value - low for low, value in zip(mark.low, values, strict=True)]
        above = [high - value for high, value in zip(mark.high, values, strict=True)]
        which = "xerr" if mark.horizontal else "yerr"
        bars: Any = {which: [below, above]}
        axes.errorbar(x, y, **bars, fmt="none", ecolor=color, capsize=3, lw=1.2)
    line_symbol = mark.symbol in ("tick", "dash")
    style: dict[str, Any] = {"c": color} if line_symbol else {"facecolors": color}
    if not line_symbol:
        style.update(
            facecolors="none" if mark.hollow else color,
            edgecolors=color if mark.hollow else "white",
        )
    axes.scatter(
        x,
        y,
        s=(mark.size * 0.8) ** 2,
        marker=_SYMBOLS[mark.symbol],
        linewidths=1.4 if line_symbol or mark.hollow else 0.5,
        zorder=3,
        label=name if mark.legend else None,
        **style,
    )
