"""Dataclasses of a few kinds as JSON, each with the name of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import TypeAdapter

from randprune.executors.base import Do, O, U
from randprune.store.codec import Json, plain

T = TypeVar("T")


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
