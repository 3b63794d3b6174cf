"""JSON and bytes that give back exactly what was stored.

Floats are written with as many digits as it takes to read the same float64 again; what JSON cannot
hold without loss (NaN, infinities, keys that are not strings, unknown types) is refused with its
place, never converted in silence.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from randprune.errors import InvalidInputError, StorageError

Json: TypeAlias = Any
"""None, bool, int, float, str, or lists and string-keyed dicts of them."""

_WIDTH_TYPES = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}


def plain(value: object, where: str = "value") -> Json:
    """`value` as plain JSON data: dataclasses and mappings to dicts, sequences to lists.

    NumPy scalars become the equal Python number (float32 to the float64 of the same value).

    Raises:
        InvalidInputError: a NaN or infinity, a key that is not a string, or another type; the
            message names the place, such as ``scores.proxy``.
    """
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        value = value.item()
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInputError(
                f"Cannot store {value!r} at {where}: records hold finite numbers only. Leave the "
                "value out, or record the candidate with status 'failed' and the error."
            )
        return float(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name), f"{where}.{field.name}")
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidInputError(
                    f"Cannot store the key {key!r} at {where}: JSON keys are strings, "
                    "it would not come back as it was."
                )
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
        return plain(value, where)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise InvalidInputError(
        f"Cannot store a {type(value).__name__} at {where}: records hold numbers, strings, lists, "
        "dicts and dataclasses of them."
    )


def encode(value: object, where: str = "value") -> str:
    """`value` as compact JSON text; `decode` gives equal plain data back."""
    return json.dumps(plain(value, where), separators=(",", ":"))


def decode(text: str) -> Json:
    """The plain data that `encode` wrote.

    Raises:
        StorageError: the text is not JSON, so the record file was altered.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise StorageError(
            f"A record is not valid JSON ({error}): the record file was altered outside randprune. "
            "Use a new output folder."
        ) from error


def content_hash(value: object) -> str:
    """Hash of JSON-ready data, equal for equal data whatever the order of its keys."""
    canonical = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def pack_widths(widths: Sequence[int]) -> bytes:
    """A configuration as one byte for the item size, then little-endian unsigned integers."""
    if not widths:
        return b"\x01"
    if min(widths) < 0:
        raise InvalidInputError(f"Widths must not be negative. Got {min(widths)}.")
    size = next(size for size in _WIDTH_TYPES if max(widths) < 1 << (8 * size))
    return bytes([size]) + np.array(widths, dtype=_WIDTH_TYPES[size]).tobytes()


def unpack_widths(blob: bytes) -> tuple[int, ...]:
    """The configuration that `pack_widths` wrote."""
    size = blob[0] if blob else 0
    if size not in _WIDTH_TYPES or (len(blob) - 1) % size:
        raise StorageError(
            "A stored configuration is damaged: the record file was altered outside randprune. "
            "Use a new output folder."
        )
    return tuple(np.frombuffer(blob, dtype=_WIDTH_TYPES[size], offset=1).tolist())
