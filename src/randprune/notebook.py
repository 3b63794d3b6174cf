"""What notebooks show: the progress of a job as bars, and the figures of its result.

result = rp.prune(model, data, out="runs/half")  # bars, without being asked for
result.plot("widths")                             # with the extra randprune[notebook]
rp.prune(model, data, progress=Silent())          # of randprune.jobs.progress: no bars
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from importlib import import_module
from typing import Any

from randprune.errors import InvalidInputError
from randprune.report.format import clock, described
from randprune.report.plot import FIGURES, plot

__all__ = ["FIGURES", "NotebookProgress", "plot"]

# A page redraws for every message, and the kernel waits for it.
_REDRAW_SECONDS = 0.25


@dataclass(slots=True)
class _Phase:
    text: str
    total: int
    done: int
    began: float
    ended: float | None = None
    first: int = 0
    metrics: tuple[str, ...] = ()

    def left(self, now: float) -> float | None:
        """Seconds until it ends, if it goes on as it did; None before the first step."""
        steps = self.done - self.first
        return (now - self.began) / steps * (self.total - self.done) if steps > 0 else None


class NotebookProgress:
    """A table with one bar a phase, drawn again in its place while a job runs.

    Args:
        clock: seconds, for the times that are shown.

    Raises:
        InvalidInputError: there is no IPython to draw with.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            self._display: Any = import_module("IPython.display")
        except ImportError as error:
            raise InvalidInputError(
                "NotebookProgress needs IPython, which draws it. Outside of notebooks leave the "
                "'progress' parameter out."
            ) from error
        self._clock = clock
        self._phases: dict[str, _Phase] = {}
        self._handle: Any = None
        self._drawn = 0.0

    def start(self, phase: str, total: int, done: int, text: str) -> None:
        """A phase begins: it gets a bar."""
        self._phases[phase] = _Phase(text, total, done, self._clock(), first=done)
        self._draw()

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        """Steps are complete: its bar moves, at most four times a second."""
        self._phases[phase].done = done
        if metrics:
            self._phases[phase].metrics = described(metrics)
        if self._clock() - self._drawn >= _REDRAW_SECONDS:
            self._draw()

    def finish(self, phase: str) -> None:
        """The phase is complete: its bar gives way to the time it took."""
        self._phases[phase].ended = self._clock()
        self._draw()

    def _draw(self) -> None:
        self._drawn = self._clock()
        if self._handle is None:
            self._handle = self._display.display(self, display_id=True)
        else:
            self._handle.update(self)

    def __repr__(self) -> str:
        return "\n".join(f"{phase.text}: {self._state(phase)}" for phase in self._phases.values())

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="text-align:left">{escape(phase.text)}</td><td>{_bar(phase)}</td>'
            f'<td style="text-align:left">{escape(self._state(phase))}</td></tr>'
            for phase in self._phases.values()
        )
        return f"<table>{rows}</table>"

    def _state(self, phase: _Phase) -> str:
        if phase.ended is not None:
            words = [f"done in {clock(phase.ended - phase.began)}"]
        else:
            left = clock(phase.left(self._drawn))
            words = [f"{phase.done} of {phase.total}", *([f"{left} left"] if left else [])]
        return ", ".join([*words, *phase.metrics])


def _bar(phase: _Phase) -> str:
    done = phase.total if phase.ended is not None else min(phase.done, phase.total)
    return f'<progress value="{done}" max="{phase.total}"></progress>'
