"""A figure as data: what is drawn, before any library. The page and the PNG show the same marks.

Colours are names, not values: a role ("dense", "searched", "uniform", "random_channels") keeps its
colour through all figures, in light and in dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from randprune.report.table import Table

Number = float | int

SERIES = ("series_1", "series_2", "series_3", "series_4", "series_5", "series_6")
"""Colours for whatever is not one of the four roles, in order."""

COLORS = ("dense", "searched", "uniform", "random_channels", "candidate", "muted", *SERIES)


@dataclass(frozen=True, slots=True)
class Axis:
    """`kind`: "linear", "log" or "category"; `percent`: shares written as per cent."""

    title: str
    kind: str = "linear"
    percent: bool = False
    span: tuple[float, float] | None = None
    whole: bool = False
    """Only whole numbers are labelled: epochs, counts."""
    large: bool = False
    """Numbers carry SI prefixes: 62.9 M."""
    order: tuple[str, ...] = ()
    """Names of a category axis in their order; default: as the marks bring them up."""


@dataclass(frozen=True, slots=True)
class Points:
    """Single values; `low`/`high` draw error bars, `labels` are shown when pointed at.

    The error bars lie along y, or along x where `horizontal` (names down the side).
    """

    name: str
    x: Sequence[Number | str]
    y: Sequence[Number | str]
    color: str
    symbol: str = "circle"
    size: float = 8
    hollow: bool = False
    low: Sequence[Number] = ()
    high: Sequence[Number] = ()
    labels: Sequence[str] = ()
    horizontal: bool = False
    legend: bool = True


@dataclass(frozen=True, slots=True)
class Line:
    """Values joined by a line; `step` holds each value until the next."""

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    color: str
    dashed: bool = False
    markers: bool = False
    step: bool = False
    width: float = 2.5
    labels: Sequence[str] = ()
    legend: bool = True


@dataclass(frozen=True, slots=True)
class Band:
    """The area between `low` and `high`."""

    name: str
    x: Sequence[Number]
    low: Sequence[Number]
    high: Sequence[Number]
    color: str


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars from zero; several lie on each other, the later in front. `width` in units of x."""

    name: str
    x: Sequence[Number | str]
    y: Sequence[Number]
    color: str
    width: float | None = None
    horizontal: bool = False
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A line across the figure at `value` of the x axis (or y, where `horizontal`)."""

    name: str
    value: float
    color: str
    horizontal: bool = False
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Zone:
    """The whole height of the figure between two values of the x axis, behind everything else."""

    name: str
    low: float
    high: float
    color: str


Mark = Points | Line | Band | Bars | Rule | Zone


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure: `text` says in words what it shows, for the caption and for screen readers.

    `data` is the table behind it, offered under the figure. `wide` figures take the full width;
    `height` is in CSS pixels.
    """

    id: str
    title: str
    text: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    data: Table | None = None
    wide: bool = False
    height: int = 340
