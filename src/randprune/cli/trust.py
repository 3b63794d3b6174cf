"""What a recipe file may do without its user's word: nothing outside, and no code of its own.

A recipe is data that people pass on. Two things in it are more than that: modules that are imported
(`plugins`, a network named package.module:callable) run code, and an output folder elsewhere writes
where its user does not expect it. Both need a flag of the command line.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from randprune.errors import InvalidInputError

_PACKAGES = ("randprune", "torchvision", "timm")


def check_trust(document: Mapping[str, Any], file: Path, overridden: Collection[str]) -> None:
    """Raise where a file names code, or a folder outside of the working directory.

    Args:
        document: the content of the file.
        file: its name, for messages.
        overridden: keys that the command line sets itself, such as "output.folder".

    Raises:
        InvalidInputError: says what the file asks for, and the flag that allows it.
    """
    modules = document.get("plugins")
    if modules and "plugins" not in overridden:
        names = ", ".join(map(str, modules)) if isinstance(modules, list) else str(modules)
        raise _code(file, f"imports the plug-ins {names}")
    spec = _inner(document, "model", "spec")
    if not isinstance(spec, str) or ":" not in spec or "model.spec" in overridden:
        return
    if spec.partition(":")[0] not in _PACKAGES:
        raise _code(file, f"makes its network with {spec}")


def check_folder(document: Mapping[str, Any], file: Path, overridden: Collection[str]) -> None:
    """Raise where a file writes outside of the working directory; arguments as `check_trust`.

    Raises:
        InvalidInputError: says where, and the flag that allows it.
    """
    folder = _inner(document, "output", "folder")
    if not isinstance(folder, str) or not folder or "output.folder" in overridden:
        return
    outside = folder.startswith("~") or "\0" in folder
    if outside or not (Path.cwd() / folder).resolve().is_relative_to(Path.cwd().resolve()):
        raise InvalidInputError(
            f"The recipe {file} writes to {folder!r}, outside of the working directory. Say where "
            "its results go: --out FOLDER."
        )


def _code(file: Path, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"The recipe {file} {what}: that is code, which runs with your rights. Look at it, then "
        "add --trust-plugins."
    )


def _inner(document: Mapping[str, Any], section: str, key: str) -> object:
    table = document.get(section)
    return table.get(key) if isinstance(table, Mapping) else None
