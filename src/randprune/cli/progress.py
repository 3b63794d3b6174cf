"""Progress of a job on standard error: a bar with the time left, or plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
)
from rich.table import Column
from rich.text import Text

from randprune.cli.console import messages
from randprune.report.format import clock, described, seconds

if TYPE_CHECKING:
    from randprune.jobs.progress import Progress as JobProgress

# A log gets a line at the ends of a phase and, in long ones, this often in between.
_LOG_SECONDS = 30.0


class _Time(ProgressColumn):
    """The time left while a phase runs, then the time it took."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(clock(task.finished_time), style="progress.elapsed")
        left = clock(task.time_remaining)
        return Text(f"{left} left" if left else "", style="progress.remaining")


class Bars:
    """One bar per phase, with steps, time taken, time left and the latest metrics."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def start(self, phase: str, total: int, done: int, text: str) -> None:
        """Add the phase's bar."""
        self._tasks[phase] = self._bars.add_task(text, total=total, completed=done, metrics=())

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        """Move the bar."""
        task = self._tasks[phase]
        self._bars.update(task, completed=done)
        for doubt in doubts(metrics):
            self._bars.console.print(doubt, markup=False)
        if metrics:
            self._bars.update(task, metrics=described(metrics))

    def finish(self, phase: str) -> None:
        """Fill the bar."""
        task = self._tasks[phase]
        total = self._bars.tasks[self._bars.task_ids.index(task)].total
        self._bars.update(task, completed=total)
        self._bars.stop_task(task)


class Lines:
    """One line per phase when it ends, and one now and then while it runs: for logs and CI."""

    def __init__(self) -> None:
        self._console = messages()
        self._text = ""
        self._total = 0
        self._started = self._told = 0.0
        self._metrics = ""

    def start(self, phase: str, total: int, done: int, text: str) -> None:
        """Remember what runs."""
        self._text, self._total, self._metrics = text, total, ""
        self._started = self._told = time.monotonic()

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        """Tell how far it is, if the last line is a while ago."""
        self._metrics = ", ".join(described(metrics)) or self._metrics
        for doubt in doubts(metrics):
            self._console.print(doubt, markup=False, soft_wrap=True)
        now = time.monotonic()
        if now - self._told >= _LOG_SECONDS and done < self._total:
            self._told = now
            self._print(f"{done} of {self._total}")

    def finish(self, phase: str) -> None:
        """Tell that it is done, and how long it took."""
        self._print(f"done in {seconds(time.monotonic() - self._started)}")

    def _print(self, state: str) -> None:
        metrics = f" ({self._metrics})" if self._metrics else ""
        self._console.print(f"{self._text}: {state}{metrics}", markup=False, soft_wrap=True)


@contextmanager
def progress(quiet: bool) -> Iterator[JobProgress]:
    """What a job reports to: bars in a terminal, lines elsewhere, nothing where `quiet`."""
    if quiet:
        from randprune.jobs.progress import Silent

        yield Silent()
    elif sys.stderr.isatty():
        with bars(messages()) as shown:
            yield shown
    else:
        yield Lines()


@contextmanager
def bars(console: Console) -> Iterator[Bars]:
    """Bars on a terminal; where it is narrow, metrics give way first, then the bar, then words."""
    bar = 0 if console.width < 60 else 12 if console.width < 100 else 16
    # What spinner, steps (as many as 12345/12345), time and the gaps between them leave.
    words = console.width - 25 if not bar else 28 if console.width < 100 else 44
    columns: list[ProgressColumn] = [
        SpinnerColumn(finished_text="[green]✓[/]"),
        _Words(max(5, words)),
    ]
    if bar:
        columns.append(BarColumn(bar_width=bar, table_column=Column(width=bar)))
    columns += [
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        _Time(table_column=Column(no_wrap=True, min_width=9)),
    ]
    if bar:
        columns.append(_Metrics())
    with Progress(*columns, console=console) as running:
        yield Bars(running)


class _Words(ProgressColumn):
    """What a phase does, in as many whole words as there is room for."""

    def __init__(self, room: int) -> None:
        super().__init__(Column(no_wrap=True))
        self._room = room

    def render(self, task: Task) -> Text:
        shown = task.description
        while cell_len(shown) > self._room and " " in shown:
            shown = shown.removesuffix(" …").rpartition(" ")[0] + " …"
        return Text(shown)


class _Metrics(ProgressColumn):
    """The latest metrics, as many as there is room for."""

    def render(self, task: Task) -> RenderableType:
        return _Whole(task.fields["metrics"])


@dataclass(frozen=True, slots=True)
class _Whole:
    """Texts beside each other: of those that do not fit, nothing is shown."""

    texts: tuple[str, ...]

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(0, min(cell_len(", ".join(self.texts)), options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        texts = self.texts
        while texts and cell_len(", ".join(texts)) > options.max_width:
            texts = texts[:-1]
        yield Text(", ".join(texts), no_wrap=True)


def doubts(metrics: Mapping[str, float]) -> list[str]:
    """A warning where the dense network hardly knows more than the commonest class."""
    chance, found = metrics.get("chance_accuracy"), metrics.get("dense_accuracy")
    if chance is None or found is None:
        return []
    from randprune.jobs.doubts import near_chance

    return near_chance(found, chance)
