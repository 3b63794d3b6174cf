"""Values of a JSON document that nobody vouches for: each of the kind and size that it must have.

Whatever reads a stranger's file asks here before it uses a value. Every function returns the value
in its Python type, and says where a wrong one stands.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from randprune.errors import ArtifactError

# No axis, stride or count of a network reaches this; sums and products of two stay in 64 bits.
LARGEST = 1 << 31
_SHOWN = 60

Shape = tuple[int, ...]


def parse(content: str) -> dict[str, Any]:
    """A JSON object, without the constants NaN and Infinity that JSON does not have."""
    return mapping(json.loads(content, parse_constant=_no_constant), "the document")


def part(document: Mapping[str, Any], key: str, where: str) -> Any:
    """The value under `key`, which must be there."""
    if key not in document:
        raise ArtifactError(f"{where} has no {key!r}")
    return document[key]


def mapping(value: Any, where: str) -> dict[str, Any]:
    """An object."""
    return value if isinstance(value, dict) else _wrong(value, where, "an object")


def sequence(value: Any, where: str, most: int = LARGEST) -> list[Any]:
    """A list of at most `most` entries."""
    if not isinstance(value, list):
        _wrong(value, where, "a list")
    if len(value) > most:
        raise ArtifactError(f"{where} must have at most {most:,} entries, it has {len(value):,}")
    return value


def text(value: Any, where: str) -> str:
    """A string."""
    return value if isinstance(value, str) else _wrong(value, where, "a text")


def name(value: Any, where: str) -> str:
    """A string that can be printed: no control characters that a terminal would act upon."""
    if not isinstance(value, str) or not value.isprintable():
        _wrong(value, where, "a printable name")
    return value


def flag(value: Any, where: str) -> bool:
    """True or false."""
    return value if isinstance(value, bool) else _wrong(value, where, "true or false")


def whole(value: Any, where: str, low: int = 0, high: int = LARGEST) -> int:
    """An integer within low..high; true and false are none."""
    if type(value) is not int or not low <= value <= high:
        _wrong(value, where, f"an integer in {low}..{high}")
    return value


def number(value: Any, where: str) -> float:
    """A finite number."""
    # An integer beyond float's range has no float.
    if type(value) is int and abs(value) < 1 << 1000:
        return float(value)
    if not isinstance(value, float) or not math.isfinite(value):
        _wrong(value, where, "a finite number")
    return value


def shape(value: Any, where: str) -> Shape:
    """The sizes of a tensor's axes."""
    return tuple(whole(size, where) for size in sequence(value, where, 64))


def shapes(value: Any, where: str) -> dict[str, Shape]:
    """Shapes by a tensor's name."""
    found = mapping(value, where).items()
    return {name(key, where): shape(sizes, f"{where}[{key!r}]") for key, sizes in found}


def texts(value: Any, where: str) -> dict[str, str]:
    """Strings by name."""
    found = mapping(value, where).items()
    return {name(key, where): text(entry, f"{where}[{key!r}]") for key, entry in found}


def _no_constant(constant: str) -> NoReturn:
    raise ArtifactError(f"the document holds {constant}, which JSON does not have")


def _wrong(value: Any, where: str, wanted: str) -> NoReturn:
    shown = repr(value)[: _SHOWN + 1]
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    raise ArtifactError(f"{where} must be {wanted}, it is {shown}")
