"""Does one unit after the other in this process, with all threads that torch uses here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Generic

from randprune.executors.base import FATAL, Advance, Do, Failure, O, U


class InProcess(Generic[U, O]):
    """See `Executor`. `do`: does one unit."""

    def __init__(self, do: Do[U, O]) -> None:
        self._do = do

    def run(
        self, units: Sequence[U], advance: Advance[U], *, total: int | None = None
    ) -> Iterator[tuple[U, O | Failure]]:
        """See `Executor`."""
        for unit in units:
            outcome: O | Failure
            try:
                outcome = self._do(unit, partial(advance, unit))
            except FATAL:
                raise
            except Exception as error:
                outcome = Failure(f"{type(error).__name__}: {error}")
            yield unit, outcome

    def close(self) -> None:
        """Nothing."""
