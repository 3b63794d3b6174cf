"""Standard output and error that cannot stop a job: whatever they are, the work goes on.

A job of hours must not end because a terminal knows ASCII only, because standard output was closed,
because the reader of a pipe has gone or a disk is full. Characters that the encoding lacks are
replaced; what cannot be written is dropped, and the command line says so at its end.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_PLAIN = {
    **dict.fromkeys("\u00a0\u2009\u202f", " "),
    **dict.fromkeys("–—·─━╺╸", "-"),
    "±": "+/-",
    "×": "x",
    "…": "...",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "│": "|",
    "✓": "*",
    "’": "'",
    "“": '"',
    "”": '"',
}
_REPLACE = "randprune.plain"


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for characters that an encoding lacks: a text of the same meaning, or "?"."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in lacking), error.end


codecs.register_error(_REPLACE, _plain)


class Lenient(io.TextIOBase):
    """A text stream over another one that never raises; `problem` is what failed first."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.problem: OSError | None = None

    def write(self, text: str) -> int:
        """Write what can be written; the length of the text."""
        if self.problem is None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                encoded = text.encode(error.encoding, _REPLACE)
                self.write(encoded.decode(error.encoding))
            except (OSError, ValueError) as error:
                self._failed(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        if self.problem is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._failed(error)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        try:
            return self._stream.isatty()
        except ValueError:  # closed
            return False

    def fileno(self) -> int:
        """The file behind it."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """True."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream below."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def reader_gone(self) -> bool:
        """Whether it is a pipe that nobody reads any more."""
        return self.problem is not None and self.problem.errno == errno.EPIPE

    def _failed(self, error: OSError | ValueError) -> None:
        closed = OSError(errno.EBADF, os.strerror(errno.EBADF))
        self.problem = error if isinstance(error, OSError) else closed
        # What is still buffered would fail again when the interpreter ends, with a code of its own.
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), self._stream.fileno())


@contextmanager
def lenient_streams() -> Iterator[Lenient]:
    """Within the block, `sys.stdout` and `sys.stderr` never raise; yields the first."""
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as opened:
        found = []
        for stream in before:
            if stream is None:
                stream = opened.enter_context(open(os.devnull, "w", encoding="utf-8"))
            found.append(Lenient(stream))
        out, err = found
        sys.stdout, sys.stderr = out, err
        try:
            yield out
        finally:
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before


def _fill_descriptors() -> None:
    """Open what was closed of the standard files, so that no file of ours takes its number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
