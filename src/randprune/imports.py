"""Modules that users name: plug-ins, and where their networks come from."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType


def import_named(name: str) -> ModuleType:
    """The module of this name, of an installed package or of the current directory.

    Raises:
        ImportError: there is none, or it cannot be imported.
    """
    here = str(Path.cwd())
    # A script's own folder is on the path, the current directory of an installed command is not.
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        if added:
            sys.path.remove(here)
