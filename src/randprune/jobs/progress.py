"""How a job tells what it is doing. The library itself prints nothing; notebooks show bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from randprune.errors import InvalidInputError, quoted
from randprune.jobs.notebook import bars

__all__ = ["Progress", "Silent"]


@runtime_checkable
class Progress(Protocol):
    """Receives a job's progress; every method may be called from the job's thread only.

    Phases follow each other and do not nest. A phase that was done by an earlier process is
    started with all its steps done and finished at once.
    """

    def start(self, phase: str, total: int, done: int, text: str) -> None:
        """A phase begins.

        Args:
            phase: its name, such as "search"; unique within a job.
            total: how many steps it has; at least 1.
            done: how many of them an earlier process did.
            text: what a person reads, such as "Searching 100 configurations".
        """
        ...

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        """`done` steps of the phase are complete.

        Args:
            phase: as started.
            done: steps complete so far; may repeat, never falls.
            metrics: what is worth showing, such as the best accuracy so far.
        """
        ...

    def finish(self, phase: str) -> None:
        """The phase is complete. Not called when the job fails."""
        ...


class Silent:
    """Progress that nobody watches."""

    def start(self, phase: str, total: int, done: int, text: str) -> None:
        """Nothing."""

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def finish(self, phase: str) -> None:
        """Nothing."""


def checked(progress: Progress | None) -> Progress:
    """The caller's progress; where there is none, bars in a notebook and `Silent` elsewhere.

    Raises:
        InvalidInputError: an object without its methods.
    """
    if progress is None:
        return bars() or Silent()
    if isinstance(progress, type) or not isinstance(progress, Progress):
        raise InvalidInputError(
            "The 'progress' parameter must have the methods start, advance and finish, as "
            f"randprune.jobs.progress.Silent has. Got {quoted(progress)} instead."
        )
    return progress


class Renamed:
    """The progress of a part of a job, under names of its own.

    Args:
        progress: is told.
        name: of the part; stands before the phases' names.
        text: stands before their texts.
    """

    def __init__(self, progress: Progress, name: str, text: str) -> None:
        self._progress = progress
        self._name = name
        self._text = text

    def start(self, phase: str, total: int, done: int, text: str) -> None:
        """A phase begins."""
        self._progress.start(f"{self._name}/{phase}", total, done, f"{self._text}: {text}")

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        """Steps are complete."""
        self._progress.advance(f"{self._name}/{phase}", done, metrics)

    def finish(self, phase: str) -> None:
        """The phase is complete."""
        self._progress.finish(f"{self._name}/{phase}")


class Phase:
    """One running phase: counts the steps for its `Progress`."""

    def __init__(self, progress: Progress, name: str, total: int, done: int) -> None:
        self._progress = progress
        self.name = name
        self.total = total
        self.done = done

    def step(self, **metrics: float) -> None:
        """One more step is complete."""
        self.at(self.done + 1, **metrics)

    def at(self, done: int, **metrics: float) -> None:
        """`done` steps are complete."""
        self.done = done
        self._progress.advance(self.name, done, metrics)


@contextmanager
def phase(
    progress: Progress, name: str, text: str, *, total: int = 1, done: int = 0
) -> Iterator[Phase]:
    """Announce a phase and, where its block ends well, its end."""
    progress.start(name, max(1, total), done, text)
    running = Phase(progress, name, total, done)
    yield running
    progress.finish(name)


def epochs_in_words(count: int) -> str:
    """ "1 epoch", "3 epochs"."""
    return f"{count} {'epoch' if count == 1 else 'epochs'}"
