"""Figures of results in memory, as Plotly objects: those of the report, for notebooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from randprune.errors import InvalidInputError, quoted
from randprune.jobs import PruneCurve, PruneResult
from randprune.report.chart import Chart
from randprune.report.ledger import ledger_chart
from randprune.report.palette import CARD, GRID, INK, LINE, PALETTE
from randprune.report.plotly_chart import to_plotly
from randprune.report.run import curve, figures
from randprune.report.run.analysis import RunAnalysis
from randprune.report.run.records import RunRecord
from randprune.store import BudgetInfo, CurvePoint, MetricInfo, RunInfo, SpaceInfo

FIGURES: Mapping[str, Callable[[RunAnalysis], Chart | None]] = {
    "stages": lambda analysis: figures.stages(analysis, None),
    "tradeoff": figures.tradeoff,
    "latency": figures.time_tradeoff,
    "candidates": figures.spread,
    "best_of": figures.best_of,
    "costs": figures.candidate_costs,
    "proxy": figures.proxy,
    "widths": lambda analysis: figures.widths(analysis, None),
    "time": lambda analysis: ledger_chart(analysis.ledger),
}
"""What a result can show, by name."""

_COLORS = {**PALETTE, "ink": INK, "grid": GRID, "line": LINE, "card": CARD}
_ROOM_FOR_TITLE = 96


def plot(result: PruneResult | PruneCurve, figure: str | None = None) -> Any:
    """A figure of a result as a `plotly.graph_objects.Figure`.

    Args:
        result: of `randprune.prune` or `randprune.prune_from_scratch`.
        figure: one of `FIGURES`; of several budgets only "budgets". Default: "stages", "budgets".

    Raises:
        InvalidInputError: there is no such figure, the result holds too little for it, or plotly
            is not installed.
    """
    several = isinstance(result, PruneCurve)
    known = ["budgets"] if several else [*FIGURES]
    name = known[0] if figure is None else figure
    if name not in known:
        raise InvalidInputError(
            f"The 'figure' parameter of {type(result).__name__}.plot must be one of "
            f"{', '.join(known)}. Got {quoted(figure)} instead."
        )
    if find_spec("plotly") is None:
        raise InvalidInputError(
            "Figures of results need plotly: pip install 'randprune[notebook]'. The report has "
            "them without it: randprune.report.write_report."
        )
    if isinstance(result, PruneCurve):
        chart = curve.chart(RunAnalysis(_record(result[0], result.curve)), None)
    else:
        chart = FIGURES[name](RunAnalysis(_record(result)))
    if chart is None:
        raise InvalidInputError(f"The result holds too little for the figure {name!r}.")
    return _figure(chart)


def _record(result: PruneResult, points: tuple[CurvePoint, ...] = ()) -> RunRecord:
    """What figures read of a run, out of its result."""
    metric, budget = result.metric, result.budget
    milestones = (
        MetricInfo("", metric.name, metric.unit, metric.higher_is_better),
        SpaceInfo.from_space(result.space),
        BudgetInfo(budget.metric, budget.ratio, budget.tolerance),
        result.winner,
    )
    return RunRecord(
        RunInfo(
            id=0,
            kind=result.recipe.job,
            recipe={},
            recipe_hash="",
            seed=result.recipe.seed,
            fingerprint=result.space.fingerprint,
            weights_hash="",
            data_fingerprint="",
            provenance={},
            status="finished",
            started="",
            finished="",
            error="",
        ),
        "finished",
        candidates=result.candidates,
        networks=result.networks,
        ledger=result.ledger,
        milestones={type(milestone): milestone for milestone in milestones},
        curve=points,
    )


def _figure(chart: Chart) -> Any:
    drawn = _colored(to_plotly(chart))
    layout = drawn["layout"]
    layout["title"] = {"text": chart.title, "x": 0.01, "y": 0.97, "yanchor": "top"}
    layout["margin"]["t"] = _ROOM_FOR_TITLE
    layout["height"] += _ROOM_FOR_TITLE
    layout["font"] = {"color": INK}
    layout.update(paper_bgcolor=CARD, plot_bgcolor=CARD)
    return import_module("plotly.graph_objects").Figure(drawn)


def _colored(value: Any) -> Any:
    """The same with a colour in the place of every name: "@searched", "@searched/0.2"."""
    if isinstance(value, dict):
        return {key: _colored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_colored(item) for item in value]
    if isinstance(value, str) and value.startswith("@"):
        name, _, opacity = value[1:].partition("/")
        # A layer's name may begin like a colour's.
        if name in _COLORS:
            return _with_opacity(_COLORS[name], opacity) if opacity else _COLORS[name]
    return value


def _with_opacity(color: str, opacity: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"
