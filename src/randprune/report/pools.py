"""Figures of a pool of candidates: how their accuracies spread, and how good the best of n is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from randprune.bench.stats import BestOfN
from randprune.report.chart import Axis, Band, Bars, Chart, Line, Mark, Points, Rule
from randprune.report.format import number
from randprune.report.scale import ACCURACY, Scale
from randprune.report.table import EMPTY, Cell, Column, Table
from randprune.store import DENSE, SEARCHED

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reference:
    """A network that candidates are compared with: its accuracy, and how it is drawn."""

    name: str
    color: str
    share: float


SEARCH_AXIS = "search accuracy"
_MOST_POINTS = 3000


def spread_chart(
    values: Sequence[float],
    labels: Sequence[str],
    references: Sequence[Reference] = (),
    data: Table | None = None,
    *,
    id: str = "spread",
    title: str = "Spread of the candidates",
    pool: str = "candidates",
    axis: str = SEARCH_AXIS,
    images: str = "on the search images",
    scale: Scale = ACCURACY,
) -> Chart | None:
    """Histogram and strip of values (N,), with references; None for fewer than two."""
    if len(values) < 2:
        return None
    bins = np.histogram_bin_edges(values, bins=min(40, max(8, round(len(values) ** 0.5) * 2)))
    counts, edges = np.histogram(values, bins)
    centers = (edges[:-1] + edges[1:]) / 2
    bottom = -0.09 * float(counts.max())
    shown = at_most(range(len(values)))
    marks: list[Mark] = [
        Bars(
            f"{len(values):,} {pool}",
            centers.tolist(),
            counts.tolist(),
            "candidate",
            width=float(edges[1] - edges[0]) * 0.94,
        ),
        Points(
            "each candidate",
            [values[i] for i in shown],
            [bottom / 2] * len(shown),
            "searched",
            symbol="tick",
            size=9,
            labels=[labels[i] for i in shown],
        ),
    ]
    marks += [
        Rule(f"{r.name} {scale.text(r.share)}", r.share, r.color, dashed=r.color == DENSE)
        for r in references
    ]
    shown_at = [reference.share for reference in references]
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    best = scale.value(max(map(scale.value, values)))
    lines = " Lines mark the networks to compare with." if references else ""
    return Chart(
        id,
        title,
        f"{scale.title()} of {len(values):,} {pool} {images}: median "
        f"{scale.text(middle)}, best {scale.text(best)}, the middle 80\u00a0% between "
        f"{scale.text(low)} and {scale.text(high)}.{lines}",
        Axis(axis, percent=scale.shares, span=_padded([*edges.tolist(), *shown_at])),
        Axis("candidates", span=(bottom, 1.08 * float(counts.max())), whole=True),
        tuple(marks),
        data,
    )


def best_of_chart(
    scores: Sequence[float],
    curve: BestOfN | None,
    references: Sequence[Reference] = (),
    scale: Scale = ACCURACY,
) -> Chart | None:
    """The curve of the expected best of n of search scores (N,), in the order drawn.

    Two bands: where a single draw of n ends, and the interval of the expectation itself.
    """
    if curve is None:
        return None
    if not scale.metric.higher_is_better:
        curve = mirrored(curve)
    n = curve.counts.tolist()
    so_far = [scale.value(score) for score in np.maximum.accumulate(scores)[curve.counts - 1]]
    known = np.isfinite(curve.mean_low)
    marks: list[Mark] = [
        Band("80 % of all draws", n, curve.low.tolist(), curve.high.tolist(), SEARCHED)
    ]
    if known.sum() > 1:
        marks.append(
            Band(
                "95 % interval of the expectation",
                curve.counts[known].tolist(),
                curve.mean_low[known].tolist(),
                curve.mean_high[known].tolist(),
                "series_1",
            )
        )
    marks += [
        Line(
            "best so far, in the order drawn",
            n,
            so_far,
            "muted",
            step=True,
        ),
        Line("expected best of n", n, curve.mean.tolist(), SEARCHED),
    ]
    marks += [
        Rule(f"{r.name} {scale.text(r.share)}", r.share, r.color, horizontal=True)
        for r in references
    ]
    tenth = float(curve.mean[np.searchsorted(curve.counts, min(10, len(scores)))])
    gain = ""
    if len(scores) > 10:
        more = scale.difference(float(curve.mean[-1]) - tenth)
        gain = f"; going from 10 to {len(scores):,} candidates brings {more}"
    return Chart(
        "best-of-n",
        "How many candidates are enough",
        f"Expected search {scale.noun} of the best of n candidates, over all choices of n from the "
        f"{len(scores):,}{gain}. "
        "The band narrows near the right end because large draws share their candidates.",
        Axis("n, candidates compared", kind="log" if len(scores) >= 20 else "linear", whole=True),
        Axis(f"search {scale.noun}", percent=scale.shares),
        tuple(marks),
        best_of_n_table(curve, scale),
        # On a phone every entry of the legend has a line of its own.
        height=340 + 25 * max(0, len(marks) - 3),
    )


def mirrored(curve: BestOfN) -> BestOfN:
    """The same curve of values of which lower is better, from that of their scores."""
    return replace(
        curve,
        mean=-curve.mean,
        low=-curve.high,
        high=-curve.low,
        mean_low=-curve.mean_high,
        mean_high=-curve.mean_low,
    )


def best_of_n_table(curve: BestOfN, scale: Scale = ACCURACY) -> Table:
    """The best-of-n curve as numbers."""
    columns = (
        Column("n", "n", True),
        Column("expected_best", "Expected best", True),
        Column("low", "Lower edge", True),
        Column("high", "Upper edge", True),
        Column("mean_low", "Interval of the expectation, from", True),
        Column("mean_high", "to", True),
    )
    values = (curve.mean, curve.low, curve.high, curve.mean_low, curve.mean_high)
    rows = tuple(
        (
            Cell(number(n), n),
            *(EMPTY if v != v else Cell(scale.text(v, 2), v) for v in row),  # NaN: no interval
        )
        for n, *row in zip(curve.counts.tolist(), *(v.tolist() for v in values), strict=True)
    )
    return Table("best_of_n", "Best of n candidates", columns, rows)


def at_most(items: Sequence[T], most: int = _MOST_POINTS) -> list[T]:
    """Evenly chosen ones of very many, so that a page stays light; the CSV has all of them."""
    if len(items) <= most:
        return list(items)
    picked = np.linspace(0, len(items) - 1, most).round().astype(int)
    return [items[i] for i in picked]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values with a little room, so that nothing lies on the frame."""
    room = 0.04 * (max(values) - min(values)) or 0.01
    return min(values) - room, max(values) + room
