"""Statistics as people read them: values with their intervals, differences, p-values."""

from __future__ import annotations

from collections.abc import Sequence

from randprune.bench.stats import Estimate
from randprune.report.format import number, percent, points, tiny
from randprune.report.table import EMPTY, Cell, Column, plain


def accuracy_text(estimate: Estimate | None) -> tuple[str, str]:
    """A mean accuracy and its interval, or why it has none."""
    if estimate is None:
        return "–", ""
    if estimate.interval is None:
        return percent(estimate.value, 2), f"n = {estimate.count}, no interval"
    low, high = estimate.interval
    return percent(estimate.value, 2), f"{100 * low:.2f} – {100 * high:.2f}"


def difference_text(estimate: Estimate) -> tuple[str, str]:
    """A difference in points and its interval, or that it has none."""
    if estimate.interval is None:
        return points(estimate.value, 2), "no interval"
    return points(estimate.value, 2), span_of_points(estimate)


def span_of_points(estimate: Estimate) -> str:
    """The interval of a difference: "−0.12 to +0.31"."""
    if estimate.interval is None:
        return "no interval"
    return " to ".join(points(end, 2).partition("\u00a0")[0] for end in estimate.interval)


def magnitude(difference: float) -> str:
    """A difference without its sign: "1.30 points"."""
    return points(abs(difference), 2).removeprefix("+")


def signed(tau: float) -> str:
    """A rank correlation: "0.53", "−0.12"; never "−0.00"."""
    return f"{tau:.2f}".replace("-0.00", "0.00").replace("-", "−")


def p_text(value: float | None) -> str:
    """A p-value: "p = 0.012", "p < 0.001", "no test"."""
    if value is None:
        return "no test"
    return ("p < 0.001" if value < 0.001 else f"p = {value:.3f}").replace(" ", "\u00a0")


def p_number(value: float) -> str:
    """A p-value alone: "0.012", "3·10⁻⁶"."""
    return f"{value:.3f}" if value >= 0.001 else tiny(value)


def epochs_text(epochs: int) -> str:
    """ "after 2 epochs", "without training"."""
    if epochs == 0:
        return "without training"
    return f"after {number(epochs)} {'epoch' if epochs == 1 else 'epochs'}"


def percent_span(interval: tuple[float, float]) -> str:
    """An interval of shares within a sentence: "91.63 to 92.68 %"."""
    return f"{100 * interval[0]:.2f} to {percent(interval[1], 2)}"


def tau_span(interval: tuple[float, float]) -> str:
    """An interval of a rank correlation: "0.42 to 0.61"."""
    return " to ".join(signed(end) for end in interval)


def deviation(variance: Estimate) -> str:
    """A standard deviation in points, with its interval."""
    text = f"{100 * variance.value**0.5:.2f}"
    if variance.interval is None:
        return text
    low, high = (100 * end**0.5 for end in variance.interval)
    return f"{text} (95\u00a0% interval {low:.2f} to {high:.2f})"


def listed(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def interval_columns(name: str) -> tuple[Column, ...]:
    """The columns of a CSV file that hold the ends of an interval."""
    return tuple(Column(f"{name}_{end}", shown="csv", numeric=True) for end in ("low", "high"))


def ends(estimate: Estimate | None) -> tuple[Cell, Cell]:
    """The ends of an interval as cells for CSV."""
    if estimate is None or estimate.interval is None:
        return EMPTY, EMPTY
    low, high = estimate.interval
    return plain(low), plain(high)
