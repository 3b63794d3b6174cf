"""TOML out: what `tomllib` reads back equal. The standard library only reads TOML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import tomli_w

from randprune.errors import InvalidInputError


def dump_toml(document: Mapping[str, Any]) -> str:
    """`document` as TOML text; entries that are None are left out.

    Raises:
        InvalidInputError: a value that recipes do not take, such as NaN.
    """
    return tomli_w.dumps(_plain(document))


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _value(value, key) for key, value in table.items() if value is not None}


def _value(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return _plain(value)
    if isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Sequence):
        return [_value(item, where) for item in value]
    raise InvalidInputError(
        f"The recipe key {where!r} holds {value!r}, which TOML cannot hold: recipes take finite "
        "numbers, strings, booleans, lists and tables."
    )
