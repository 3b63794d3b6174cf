"""What a job with several budgets hands back: a result for each, and accuracy against cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from randprune.jobs.notebook import figure_of, html_table
from randprune.jobs.result import PruneResult
from randprune.store import DENSE, CurvePoint
from randprune.tasks import ACCURACY


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PruneCurve:
    """The results of several budgets, in the order in which they were asked for.

    Iterating over it, and indexing, gives the results.

    Attributes:
        results: one a budget, each as a job with that budget alone gives it.
    """

    results: tuple[PruneResult, ...]

    def __iter__(self) -> Iterator[PruneResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> PruneResult:
        return self.results[index]

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """Accuracy against MACs, the largest budget first."""
        points = (
            CurvePoint.of(
                result.budget.ratio,
                result.networks,
                "" if result.artifact is None else result.artifact.name,
            )
            for result in self.results
        )
        return tuple(sorted((p for p in points if p is not None), key=lambda p: -p.ratio))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know, of each result."""
        return tuple(
            f"{result.budget.ratio:.0%}: {note}" for result in self.results for note in result.notes
        )

    def without_folder(self) -> PruneCurve:
        """The same where the folder is not kept."""
        return replace(self, results=tuple(result.without_folder() for result in self.results))

    def summary(self) -> str:
        """The curve as a table of text."""
        table = self._table()
        wide = max(8, len(table[0][2]))
        lines = [
            f"{budget:>7} {macs:>7} {test:>{wide}} {stage:<11} {beside:>17}  {file}".rstrip()
            for budget, macs, test, stage, beside, file in table
        ]
        return "\n".join([*lines, *self.notes])

    def _table(self) -> list[tuple[str, ...]]:
        """A header, and a row of text for the dense network and for each budget."""
        metric = self.results[0].metric
        title = "test" if metric == ACCURACY else metric.name
        dense = metric.shown(self.results[0].value(DENSE))
        table: list[tuple[str, ...]] = [
            ("budget", "MACs", title, "stage", "beside uniform", "file"),
            ("-", "100.0%", dense, "as given", "", ""),
        ]
        for point in self.curve:
            words = "fine-tuned" if point.stage == "finetuned" else point.stage
            beside = ""
            if point.beside is not None and point.uniform is not None:
                beside = f"{metric.shown(point.beside)} / {metric.shown(point.uniform)}"
            shares = (f"{point.ratio:.1%}", f"{point.macs:.1%}")
            table.append((*shares, metric.shown(point.accuracy), words, beside, point.file))
        return table

    def plot(self) -> Any:
        """The curve as a `plotly.graph_objects.Figure`; see `PruneResult.plot`."""
        return figure_of(self, None)

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {len(self)} budgets\n{self.summary()}"

    def _repr_html_(self) -> str:
        header, *rows = self._table()
        title = f"{type(self).__name__} of {len(self)} budgets"
        return html_table(title, header, rows, self.notes)
