"""Results as notebooks show them: an HTML table, with every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()
) -> str:
    """A table with a title above and notes below; the first column is text, others are numbers."""
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
