"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from randprune.errors import StorageError


def write_file(path: str | os.PathLike[str], data: bytes) -> Path:
    """`path`, which now holds exactly `data`; missing folders are created.

    Whatever happens (a full disk, Ctrl-C, a power cut), `path` holds either what it held before or
    all of `data`: it is written beside, forced to the disk, and renamed.

    Raises:
        StorageError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # os.open, not tempfile: the file gets the permissions that the user's umask gives.
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({len(data):,} bytes): {error.strerror or error}. "
            "Make room, correct the permissions, or choose another folder."
        ) from error
    _sync_folder(path.parent)
    return path


def _sync_folder(folder: Path) -> None:
    """Force the rename itself to the disk, where the system can do that for folders."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
