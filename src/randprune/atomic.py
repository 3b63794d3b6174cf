"""Paths that callers give, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from randprune.errors import InvalidInputError, StorageError, quoted


def checked_path(path: object, parameter: str) -> Path:
    """`path` as a `Path`; `parameter` names it in the message.

    Raises:
        InvalidInputError: not a text or a path, empty of meaning to the system (a NUL character).
    """
    try:
        found = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        found = None
    if not isinstance(found, str):
        raise InvalidInputError(
            f"The {parameter!r} parameter must be a file name: a text or a pathlib.Path. "
            f"Got {quoted(path)} instead."
        )
    if "\0" in found:
        raise InvalidInputError(
            f"The {parameter!r} parameter holds a NUL character, which no file name can: {found!r}."
        )
    return Path(found)


def write_file(path: str | os.PathLike[str], data: bytes) -> Path:
    """`path`, which now holds exactly `data`; missing folders are created.

    Whatever happens (a full disk, Ctrl-C, a power cut), `path` holds either what it held before or
    all of `data`: it is written beside, forced to the disk, and renamed.

    Raises:
        StorageError: the folder cannot be written or the disk is full.
        InvalidInputError: `path` can name no file.
    """
    path = checked_path(path, "path")
    if not path.name:
        raise InvalidInputError(
            f"The 'path' parameter must name a file. Got {quoted(str(path))} instead."
        )
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        # Renaming would put a file in the place of a device: as root even of /dev/null.
        if path.exists() and not path.is_file():
            raise FileExistsError(errno.EEXIST, "it is there and no regular file")
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
