"""Several budgets of one job, side by side: the metric against MACs, as a table and as a figure."""

from __future__ import annotations

from collections.abc import Sequence

from randprune.report.chart import Axis, Chart, Line, Mark, Rule
from randprune.report.estimates import listed
from randprune.report.format import percent
from randprune.report.run.analysis import RunAnalysis
from randprune.report.run.networks import measured
from randprune.report.table import Cell, Column, Table, said
from randprune.store import SEARCHED, UNIFORM, CurvePoint


def headline(analysis: RunAnalysis) -> str:
    """The budgets and what each gives, in a sentence."""
    points, scale = analysis.record.curve, analysis.scale
    reached = [f"{scale.text(p.accuracy)} at {percent(p.macs)} of the MACs" for p in points]
    dense = _dense(analysis)
    beside = "" if dense is None else f" (dense {scale.text(dense)})"
    return f"{analysis.record.title}, {len(points)} budgets: {listed(reached)}{beside}"


def table(analysis: RunAnalysis) -> Table | None:
    """One row a budget; None where the job has one budget."""
    points = analysis.record.curve
    if not points:
        return None
    stages = dict.fromkeys(analysis.words.stage(p.common) for p in points if p.common)
    how = f", {' or '.join(stages)}" if stages else ""
    columns = (
        Column("budget", "Budget", True),
        Column("macs", "MACs", True),
        Column("test_top1", analysis.scale.title("test"), True),
        Column("stage", "Stage"),
        Column("beside", f"Searched{how}", True, minor=True),
        Column("uniform", f"Uniform{how}", True),
        Column("file", "File"),
    )
    rows = tuple(
        (
            Cell(percent(point.ratio), point.ratio),
            Cell(percent(point.macs), point.macs),
            measured(analysis.scale, point.accuracy),
            Cell(analysis.words.stage(point.stage), point.stage),
            measured(analysis.scale, point.beside),
            measured(analysis.scale, point.uniform),
            said(point.file),
        )
        for point in points
    )
    note = (
        "Each budget has a search and a network of its own; statistics, scores and the dense "
        "network's outputs are shared, and their cost is in the ledger of the first one."
    )
    return Table("budgets", "Every budget", columns, rows, note).without_empty()


def chart(analysis: RunAnalysis, data: Table | None) -> Chart | None:
    """The test metric against MACs, uniform widths beside it; None for fewer than two points."""
    points = analysis.record.curve
    if len(points) < 2:
        return None
    marks: list[Mark] = [_line("searched", points, [p.accuracy for p in points], SEARCHED)]
    # Controls may not be fine-tuned: then the search is shown as it was before that, too.
    beside = [p for p in points if p.common not in (None, p.stage)]
    if beside:
        shares = [p.beside for p in beside if p.beside is not None]
        marks.append(_line("searched, not fine-tuned", beside, shares, SEARCHED, dashed=True))
    uniform = [p for p in points if p.uniform is not None]
    if uniform:
        shares = [p.uniform for p in uniform if p.uniform is not None]
        name = "uniform widths, not fine-tuned" if beside else "uniform widths"
        marks.append(_line(name, uniform, shares, UNIFORM, dashed=bool(beside)))
    dense = _dense(analysis)
    if dense is not None:
        marks.append(Rule("dense", dense, "dense", horizontal=True, dashed=True))
    return Chart(
        "accuracy-budgets",
        f"{analysis.scale.title()} against MACs",
        f"{analysis.scale.title()} on the test set over the share of the dense network's MACs that "
        "remains, one point a budget, with uniform widths beside the search.",
        Axis("share of the MACs", percent=True),
        Axis(f"test {analysis.scale.noun}", percent=analysis.scale.shares),
        tuple(marks),
        data,
        wide=True,
    )


def _line(
    name: str,
    points: Sequence[CurvePoint],
    shares: Sequence[float],
    color: str,
    *,
    dashed: bool = False,
) -> Line:
    labels = [f"{percent(point.ratio)} asked for" for point in points]
    return Line(
        name, [p.macs for p in points], shares, color, dashed=dashed, markers=True, labels=labels
    )


def _dense(analysis: RunAnalysis) -> float | None:
    dense = analysis.dense
    return None if dense is None or dense.last is None else dense.last.share
