"""A recipe as it is passed on: it tells where files lie, and not whose they are.

Absolute names become relative to the working folder, where the same command then works again. Of
what lies outside of it, the last part stays; the text says what has to be given again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from randprune.provenance import OUTSIDE, shared_names
from randprune.recipe.toml import dump_toml


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
