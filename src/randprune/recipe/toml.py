"""TOML out: what `tomllib` reads back equal.

The standard library only reads TOML. Recipes need tables of scalars, arrays and small nested
tables, which is what is written here; anything else is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from randprune.errors import InvalidInputError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dump_toml(document: Mapping[str, Any]) -> str:
    """`document` as TOML text; entries that are None are left out.

    Top-level mappings become ``[sections]``, after all other keys; mappings inside them become
    inline tables.

    Raises:
        InvalidInputError: a value that TOML cannot hold.
    """
    plain = {k: v for k, v in document.items() if v is not None and not isinstance(v, Mapping)}
    lines = _assignments(plain)
    for name, section in document.items():
        if isinstance(section, Mapping):
            lines += [""] if lines else []
            lines += [f"[{_key(name)}]", *_assignments(section)]
    return "\n".join(lines) + "\n"


def _assignments(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(k)} = {_value(v, k)}" for k, v in table.items() if v is not None]


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    # A JSON string is a TOML basic string, except that TOML wants DEL escaped and has no
    # surrogate pairs, which `ensure_ascii=False` avoids.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        inner = (f"{_key(k)} = {_value(v, k)}" for k, v in value.items() if v is not None)
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_value(item, where) for item in value) + "]"
    raise InvalidInputError(
        f"The recipe key {where!r} holds {value!r}, which TOML cannot hold: recipes take finite "
        "numbers, strings, booleans, lists and tables."
    )
