"""How the values of a run's metric are written and drawn: accuracy, or whatever the task has."""

from __future__ import annotations

from dataclasses import dataclass, field

from randprune.report.format import number, percent, points
from randprune.store import MetricInfo


@dataclass(frozen=True, slots=True)
class Scale:
    """The metric of a run, for people.

    Attributes:
        metric: its name, unit and direction.
    """

    metric: MetricInfo = field(default_factory=MetricInfo)

    @property
    def noun(self) -> str:
        """The metric's name, such as "accuracy"."""
        return self.metric.name

    @property
    def shares(self) -> bool:
        """Whether values are shares, written as per cent."""
        return self.metric.unit == "%"

    def value(self, score: float) -> float:
        """The value behind a score, of which higher is better; and back."""
        return score if self.metric.higher_is_better else -score

    def text(self, value: float, digits: int = 1) -> str:
        """A value with its unit: "92.1 %", "3.2 years"."""
        if self.shares:
            return percent(value, digits)
        return f"{number(value)}\u00a0{self.metric.unit}".rstrip()

    def of_score(self, score: float) -> str:
        """The value behind a score with its unit."""
        return self.text(self.value(score))

    def bare(self, value: float) -> str:
        """A value without its unit, to the last digit that counts."""
        return f"{100 * value:.2f}" if self.shares else number(value)

    def difference(self, difference: float, digits: int = 1) -> str:
        """A difference of values, with its sign."""
        if self.shares:
            return points(difference, digits)
        sign = "" if difference < 0 else "+"
        return f"{sign}{number(difference)}\u00a0{self.metric.unit}".rstrip()

    def title(self, before: str = "") -> str:
        """A heading: "Test accuracy"."""
        words = f"{before} {self.noun}".strip()
        return words[:1].upper() + words[1:]


ACCURACY = Scale()
