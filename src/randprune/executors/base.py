"""The protocol of executors: units in, each with its outcome or its failure out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from randprune.errors import MemoryLimitError, StorageError

U = TypeVar("U")
O = TypeVar("O")  # noqa: E741 - units and outcomes
O_co = TypeVar("O_co", covariant=True)

Tell = Callable[[float], None]
"""Receives the share of a unit that is done."""

Advance: TypeAlias = Callable[[U, float], None]
"""Receives a unit and the share of it that is done."""

Do: TypeAlias = Callable[[U, Tell], O]
"""Does one unit, and returns what came of it."""

FATAL = (StorageError, MemoryLimitError, MemoryError)
"""What says nothing about a unit but that no work can go on here."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a unit has no outcome: the error's name and text."""

    error: str


class Executor(Protocol[U, O_co]):
    """Does units, in any order and anywhere."""

    def run(
        self, units: Sequence[U], advance: Advance[U], *, total: int | None = None
    ) -> Iterator[tuple[U, O_co | Failure]]:
        """Each unit with what came of it, as they finish.

        Args:
            units: what is to be done.
            advance: is told how far they are.
            total: how many units there are, with those that an earlier process has done; default:
                these. A single one may get all threads: whether it does must not depend on an
                interruption, since threads change the last bits.

        Raises:
            StorageError, MemoryError: a unit met one of these (`FATAL`).
        """
        ...

    def close(self) -> None:
        """Stop all work; units that are not finished are given up."""
        ...
