"""What a long computation has found so far, in a file that the next process goes on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from randprune.errors import ArtifactError
from randprune.tensor_file import read_with_head, write_tensors

EVERY_SECONDS = 30.0
# Writing may take this share of the time.
_MOST = 0.05


class Partial:
    """Tensors and counts so far, written whole or not at all, every so often.

    A file that another computation has left, or a damaged one, is as good as none.

    Args:
        path: the file; removed by `remove` when the result is safe.
        key: what the computation is, JSON-ready; one with another key begins anew.
        every_seconds: how often at most the file is written; default: `EVERY_SECONDS`; 0: whenever
            there is something new.
    """

    def __init__(
        self, path: Path, key: Mapping[str, Any], every_seconds: float | None = None
    ) -> None:
        self.path = path
        self.key = dict(key)
        self.every_seconds = EVERY_SECONDS if every_seconds is None else every_seconds
        self.head = self._known_head()
        """The counts so far; empty where there is no file of this computation."""
        self.seconds: float = self.head.get("seconds", 0.0)
        """What earlier processes have spent on it."""
        self._start = time.monotonic()
        self._next = self._start + self.every_seconds

    def _known_head(self) -> dict[str, Any]:
        try:
            head = read_with_head(self.path)[0]
        except ArtifactError:
            return {}
        return head if head.get("key") == self.key else {}

    def read(self) -> dict[str, Tensor]:
        """The tensors so far; none where there is no file of this computation."""
        if not self.head:
            return {}
        try:
            return read_with_head(self.path)[1]
        except ArtifactError:
            self.head, self.seconds = {}, 0.0
            return {}

    def save(self, tensors: Callable[[], Mapping[str, Tensor]], **counts: Any) -> None:
        """Write what there is now, if the last time is a while ago.

        Raises:
            StorageError: the file cannot be written.
        """
        now = time.monotonic()
        if now < self._next:
            return
        head = {**counts, "key": self.key, "seconds": self.seconds + now - self._start}
        write_tensors(self.path, tensors(), head)
        if self.every_seconds:
            # A file that takes long to write is written less often.
            took = time.monotonic() - now
            self._next = now + max(self.every_seconds, took / _MOST)

    def remove(self) -> None:
        """The result is safe: forget what led to it."""
        self.path.unlink(missing_ok=True)
