"""Scripts run in processes of their own that need the records, and not torch."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import randprune

# The package's own __init__ imports torch, seconds of every start; an empty stand-in for it leaves
# the submodules as they are.
_PROLOGUE = f"""
    import sys, types
    sys.modules["randprune"] = types.ModuleType("randprune")
    sys.modules["randprune"].__path__ = [{str(Path(randprune.__file__).parent)!r}]
"""


def command(script: str, *arguments: object) -> list[str]:
    """The command line that runs `script`, an indented text, with `sys.argv[1:] = arguments`."""
    text = textwrap.dedent(_PROLOGUE) + textwrap.dedent(script)
    return [sys.executable, "-c", text, *map(str, arguments)]
