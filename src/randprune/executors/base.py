"""The protocol of executors: units in, each with its outcome or failure out; also over a wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from pydantic import TypeAdapter

from randprune.errors import MemoryLimitError, StorageError
from randprune.store.codec import Json, plain

T = TypeVar("T")
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


class Wire(Generic[T]):
    """Writes and reads dataclasses of these kinds; floats come back as they were, bit for bit."""

    def __init__(self, *kinds: type[T]) -> None:
        self._adapters: Mapping[str, TypeAdapter[T]] = {
            kind.__name__: TypeAdapter(kind) for kind in kinds
        }

    def document(self, value: T) -> dict[str, Json]:
        """The value as plain data; see `randprune.store.codec.plain`."""
        kind = type(value).__name__
        return {kind: plain(value, kind)}

    def value(self, document: Mapping[str, Json]) -> T:
        """What `document` was made of.

        Raises:
            ValueError: nothing that this version writes.
        """
        try:
            ((kind, fields),) = document.items()
            return self._adapters[kind].validate_python(fields)
        except (AttributeError, KeyError) as error:
            raise ValueError(f"not one of {', '.join(self._adapters)}") from error


@dataclass(frozen=True, slots=True)
class Work(Generic[U, O]):
    """Work that other processes can do: all that goes to them and comes from them is JSON.

    Attributes:
        module, name: where a process finds this object.
        open: gets a process ready, from a document.
        units, outcomes: how they are written.
    """

    module: str
    name: str
    open: Callable[[Json], Do[U, O]]
    units: Wire[U]
    outcomes: Wire[O]
