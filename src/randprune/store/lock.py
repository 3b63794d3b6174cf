"""One writer per output folder.

The lock is a write transaction on an empty SQLite file, which SQLite holds through the operating
system: it ends with the process that took it, however that ends, and unlike `flock` it is not
inherited by forked data-loading workers, which would keep a killed job's folder locked. Readers
never take it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from randprune.store.schema import LOCK_NAME, storage_errors

# A reader that asks whether the folder is in use holds the lock for a moment; writers wait for it.
_WAIT_SECONDS = 0.5


def acquire(folder: Path) -> sqlite3.Connection | None:
    """The lock on `folder`, held until the connection is closed; None where another holds it."""
    path = folder / LOCK_NAME
    with storage_errors(path, "lock"):
        connection = sqlite3.connect(
            path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorname == "SQLITE_BUSY":
                return None
            raise
    return connection


def is_held(folder: Path) -> bool | None:
    """Whether a live process writes to `folder`; None where that cannot be found out."""
    path = folder / LOCK_NAME
    if not path.exists():
        return False
    # On a file that it may not write, SQLite would begin a reading transaction and see no lock.
    if not os.access(path, os.W_OK):
        return None
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0.1)
        ) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        return True if error.sqlite_errorname == "SQLITE_BUSY" else None
    except sqlite3.Error:
        return None
    return False
