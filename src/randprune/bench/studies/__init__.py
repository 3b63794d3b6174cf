"""The studies that are shipped: recipes of the paper's findings, by name."""

from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import Path

from randprune.errors import InvalidInputError


def study_names() -> tuple[str, ...]:
    """All shipped studies, sorted."""
    found = (Path(entry.name) for entry in files(__name__).iterdir())
    return tuple(sorted(path.stem for path in found if path.suffix == ".toml"))


def study_file(name: str) -> Path:
    """The recipe of a shipped study, or the file called `name`.

    Raises:
        InvalidInputError: neither is there; lists the studies.
    """
    path = Path(name)
    if path.suffix == ".toml" or path.exists():
        return path
    if name in study_names():
        return Path(str(files(__name__).joinpath(f"{name}.toml")))
    close = difflib.get_close_matches(name, study_names(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InvalidInputError(
        f"No study or recipe file is called {name!r}.{hint} The studies are "
        f"{', '.join(study_names())}; a recipe is a .toml file."
    )
