"""Recipes as TOML text: what `tomllib` reads back equal, and what is passed on.

A recipe that is passed on tells where files lie, and not whose they are. Absolute names become
relative to the working folder, where the same command then works again. Of what lies outside of it,
the last part stays; the text says what has to be given again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import tomli_w

from randprune.errors import InvalidInputError
from randprune.provenance import OUTSIDE, shared_names


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


def shareable(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The recipe's keys with relative names, and by key the names of what lies elsewhere.

    An output folder that lies elsewhere is left out: the default one takes its place.
    """
    found, names = shared_names(document)
    outside = {key: name for key, name in names.items() if OUTSIDE in name}
    if outside.pop("output.folder", None):
        found["output"] = {**found["output"], "folder": ""}
    return found, outside


def shareable_toml(document: Mapping[str, Any], command: str) -> str:
    """The recipe's text, after comments that say how to use it.

    Args:
        document: its keys.
        command: does the same again where this one was given; "" where the recipe does not say all.
    """
    found, outside = shareable(document)
    lines = ["Names of files are relative to the folder in which the command was given."]
    if command:
        lines += ["There, this does the same again:", f"  {command}"]
    if outside:
        lines.append("What lay outside of that folder has to be given again, as in:")
        lines += [f"  --set {key}={name}" for key, name in outside.items()]
    return "".join(f"# {line}\n" for line in lines) + "\n" + dump_toml(found)
