"""Presets: named settings of a pruning job, each a recipe in a TOML file of this folder.

A recipe says `preset = "paper"`; every key that it holds itself wins over the preset's.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from randprune.errors import InvalidInputError

DEFAULT = "default"


def preset_names() -> list[str]:
    """The names of all presets, the default first."""
    found = (entry.name for entry in files(__package__).iterdir())
    names = sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))
    return sorted(names, key=lambda name: name != DEFAULT)


def preset_text(name: str) -> str:
    """The TOML text of a preset; its first line is a comment that says what it is.

    Raises:
        InvalidInputError: there is no such preset; names those that there are.
    """
    if name not in (known := preset_names()):
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InvalidInputError(
            f"There is no preset {name!r}.{hint} There are: {', '.join(known)}."
        )
    return (files(__package__) / f"{name}.toml").read_text(encoding="utf-8")


def preset_meaning(name: str) -> str:
    """The line that says what a preset is."""
    return preset_text(name).splitlines()[0].removeprefix("#").strip()


def with_preset(document: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's document, and what its preset says of the keys that it does not hold.

    Raises:
        InvalidInputError: there is no such preset.
    """
    return _over(tomllib.loads(preset_text(document.get("preset", DEFAULT))), document)


def _over(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, with the keys of `base` that it lacks, table by table."""
    found = dict(base)
    for key, value in given.items():
        below = found.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        found[key] = _over(below, value) if both else value  # type: ignore[arg-type]
    return found
