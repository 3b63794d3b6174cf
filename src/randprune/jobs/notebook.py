"""Results as notebooks show them: HTML tables, figures, and bars while a job runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from html import escape
from importlib import import_module
from typing import Any


def html_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()
) -> str:
    """A table with a title above and notes below; the first column is text, others are numbers.

    Every text is escaped.
    """
    head = "".join(_cell("th", text, i) for i, text in enumerate(header))
    body = "".join(
        f"<tr>{''.join(_cell('td', text, i) for i, text in enumerate(row))}</tr>" for row in rows
    )
    below = "".join(f"<div>{escape(note)}</div>" for note in notes)
    return (
        f"<div><strong>{escape(title)}</strong>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}</div>"
    )


def _cell(kind: str, text: str, column: int) -> str:
    side = "left" if column == 0 else "right"
    return f'<{kind} style="text-align:{side}">{escape(text)}</{kind}>'


def figure_of(result: Any, name: str | None) -> Any:
    """A figure of a result; see `randprune.notebook.plot`."""
    return _shown_by().plot(result, name)


def bars() -> Any | None:
    """Progress for the notebook that runs this; None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    # A terminal's IPython has no kernel.
    if getattr(shell, "kernel", None) is None:
        return None
    return _shown_by().NotebookProgress()


def _shown_by() -> Any:
    # Reports stand on jobs, not jobs on reports: what draws is named here, and loaded when used.
    return import_module("randprune.notebook")
