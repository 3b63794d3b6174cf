"""What the rows of a benchmark are called on its page, and how figures show them."""

from __future__ import annotations

from dataclasses import dataclass

from randprune.bench.keys import Row
from randprune.bench.records import BenchRun
from randprune.bench.stats import Comparison, Estimate, Verdict
from randprune.report.bench.words import words_of
from randprune.report.chart import SERIES
from randprune.report.format import number, percent, points, tiny
from randprune.store import DENSE, RANDOM_CHANNELS, SEARCHED, UNIFORM

VERDICT_COLORS: dict[Verdict, str] = {
    "better": "series_5",
    "equivalent": "searched",
    "undecided": "dense",
    "worse": "series_4",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How a row is drawn: name of its kind in the legend, colour, symbol."""

    legend: str
    color: str
    symbol: str
    is_reference: bool = False

    @property
    def size(self) -> float:
        """Of its symbol, in pixels: shapes of one size do not look equally large."""
        return 14 if self.is_reference else 11 if self.symbol == "triangle" else 9


class Names:
    """Short, unique names of a run's rows.

    Rows of the reference's method go by their criterion, a method with a single row by its own
    name, any other row by both. From scratch there are no criteria to name.
    """

    def __init__(self, run: BenchRun) -> None:
        rows = run.protocol.rows
        self.words = words_of(run.protocol.setting)
        self.ranked = run.protocol.setting == "pretrained"
        self.reference = run.protocol.reference
        self.dense = run.protocol.dense_row
        labels = [row.label for row in rows]
        short = {}
        for row in rows:
            label, criterion = row.label, row.criterion
            if row == self.dense:
                short[row] = "dense network"
            elif labels.count(label) == 1:
                short[row] = spaced(label)
            elif label == self.reference.label:
                short[row] = "random ranking" if criterion == "random" else spaced(criterion)
            else:
                short[row] = f"{spaced(label)} with {spaced(criterion)}"
        taken = list(short.values())
        self._short = {
            row: name if taken.count(name) == 1 else str(row) for row, name in short.items()
        }
        methods = {info.label: info.method for info in run.protocol.methods}
        others = [
            label
            for label in dict.fromkeys(labels)
            if label != self.reference.label
            and methods.get(label) not in (UNIFORM, RANDOM_CHANNELS, DENSE)
        ]
        self._looks: dict[Row, Look] = {}
        for row in rows:
            label = row.label
            method = methods.get(label)
            if row == self.reference:
                look = Look(
                    f"reference: {self.reference_name}", SEARCHED, "star", is_reference=True
                )
            elif method == DENSE:
                look = Look("dense network", DENSE, "square")
            elif label == self.reference.label:
                look = Look(f"{spaced(label)}, other criteria", "candidate", "circle")
            elif method == UNIFORM:
                look = Look(spaced(label), UNIFORM, "diamond")
            elif method == RANDOM_CHANNELS:
                look = Look(spaced(label), RANDOM_CHANNELS, "triangle")
            else:
                look = Look(spaced(label), SERIES[others.index(label) % len(SERIES)], "square")
            self._looks[row] = look

    def of(self, row: Row) -> str:
        """The short name of a row."""
        return self._short.get(row, str(row))

    def detail(self, row: Row) -> str:
        """The part of a row's full name that its short name leaves out."""
        label, criterion = spaced(row.label), spaced(row.criterion)
        short = self.of(row)
        if not self.ranked:
            return "full width" if row == self.dense else ""
        if short == label:
            return f"with {criterion}"
        return label if label not in short else ""

    @property
    def reference_name(self) -> str:
        """The reference in full: "random search with l1"; from scratch: "random search"."""
        label, criterion = self.reference.label, self.reference.criterion
        if not self.ranked:
            return spaced(label)
        return f"{spaced(label)} with {spaced(criterion)}"

    def look(self, row: Row) -> Look:
        """How a row is drawn."""
        return self._looks[row]


def spaced(name: str) -> str:
    """A recipe's name as people read it."""
    return name.replace("_", " ")


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


def verdict_counts(comparisons: tuple[Comparison[Row], ...]) -> dict[Verdict, int]:
    """How many comparisons came to each verdict, in the order better to worse."""
    return {verdict: sum(c.verdict == verdict for c in comparisons) for verdict in VERDICT_COLORS}
