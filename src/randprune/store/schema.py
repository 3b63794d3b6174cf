"""The tables of `records.sqlite`, and how its connections are opened and checked.

The file is an ordinary SQLite database in WAL mode: any tool reads it, also while a job writes.
`application_id` marks it as ours, `user_version` is the version of these tables.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from randprune.errors import StorageError
from randprune.store.upgrade import upgrade

FILE_NAME = "records.sqlite"
LOCK_NAME = "records.lock"
SCHEMA_VERSION = 2
_APPLICATION_ID = 0x52505231  # "RPR1"
_BUSY_SECONDS = 10.0

_TABLES = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    recipe TEXT NOT NULL,
    recipe_hash TEXT NOT NULL,
    seed TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    weights_hash TEXT NOT NULL,
    data_fingerprint TEXT NOT NULL,
    provenance TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('running', 'finished', 'failed', 'interrupted')),
    started TEXT NOT NULL,
    finished TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT ''
);
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id),
    pid INTEGER NOT NULL,
    started TEXT NOT NULL,
    ended TEXT NOT NULL DEFAULT '',
    provenance TEXT NOT NULL
);
CREATE TABLE candidates (
    run INTEGER NOT NULL REFERENCES runs (id),
    method TEXT NOT NULL,
    criterion TEXT NOT NULL,
    draw INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    widths BLOB NOT NULL,
    seed TEXT,
    costs TEXT NOT NULL,
    scores TEXT NOT NULL,
    seconds TEXT NOT NULL,
    selection TEXT NOT NULL,
    status TEXT NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (run, method, criterion, draw, idx)
) WITHOUT ROWID;
CREATE TABLE networks (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id),
    label TEXT NOT NULL,
    stage TEXT NOT NULL,
    seed TEXT NOT NULL,
    role TEXT NOT NULL,
    row TEXT NOT NULL,
    UNIQUE (run, label, stage, seed)
);
CREATE TABLE epochs (
    run INTEGER NOT NULL REFERENCES runs (id),
    network TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    metrics TEXT NOT NULL,
    PRIMARY KEY (run, network, epoch)
) WITHOUT ROWID;
CREATE TABLE milestones (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id),
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    time TEXT NOT NULL,
    UNIQUE (run, key)
);
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id),
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    UNIQUE (run, kind, key)
);
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id),
    key TEXT NOT NULL,
    phase TEXT NOT NULL,
    candidates INTEGER NOT NULL,
    images_forward INTEGER NOT NULL,
    images_backward INTEGER NOT NULL,
    macs_spent REAL NOT NULL,
    seconds REAL NOT NULL,
    device TEXT NOT NULL,
    UNIQUE (run, key)
);
"""

_NEXT_STEP = {
    "SQLITE_FULL": "The disk is full: free some space and run the same command again, "
    "nothing that was recorded is lost.",
    "SQLITE_IOERR": "The disk is full or failing: free some space or choose another output folder, "
    "then run the same command again; nothing that was recorded is lost.",
    "SQLITE_READONLY": "The folder or the file cannot be written: change its permissions or choose "
    "another output folder.",
    "SQLITE_CANTOPEN": "The file cannot be opened or created: check that the folder exists and "
    "can be written, or choose another output folder.",
    "SQLITE_NOTADB": "It is not an SQLite database: move the file away or choose another output "
    "folder.",
    "SQLITE_CORRUPT": "The database is damaged: move the file away or choose another output "
    "folder.",
    "SQLITE_BUSY": "Another program keeps the database locked: close it and run the same command "
    "again.",
}


@contextlib.contextmanager
def storage_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn what SQLite and the file system raise into a `StorageError` with the next step."""
    try:
        yield
    except sqlite3.Error as error:
        # Extended codes such as SQLITE_IOERR_WRITE begin with the name of their family.
        name = getattr(error, "sqlite_errorname", "") or ""
        step = next((text for code, text in _NEXT_STEP.items() if name.startswith(code)), "")
        raise StorageError(f"Cannot {doing} {path.name} in {path.parent}: {error}. {step}") from (
            error
        )
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"Cannot {doing} {path.name} in {path.parent}: {error.strerror or error}. "
            "Choose an output folder that can be written and has space."
        ) from error


def now() -> str:
    """The present as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def connect_writer(path: Path) -> sqlite3.Connection:
    """A connection that may write, on a database with today's tables; the lock is the caller's."""
    with storage_errors(path, "open"):
        connection = _connect(f"{path.absolute().as_uri()}?mode=rwc")
        try:
            empty = _check_version(connection, path)
            if not empty and (version := _version(connection)) < SCHEMA_VERSION:
                raise StorageError(
                    f"{path.name} in {path.parent} has record format {version} of an earlier "
                    "version of randprune. It can be read, by randprune report, but not continued. "
                    "Choose another output folder."
                )
            # WAL: readers never wait for the writer. FULL: a commit is on the disk when it returns,
            # also where the power fails.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            if empty:
                # One transaction: a killed process leaves no table or all of them.
                connection.executescript(
                    f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id = {_APPLICATION_ID};"
                    f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                )
        except BaseException:
            connection.close()
            raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write; works while another process writes."""
    if not path.is_file():
        raise StorageError(
            f"No records in {path.parent}: {path.name} does not exist. "
            "Give the output folder of a run."
        )
    uri = path.absolute().as_uri()
    with storage_errors(path, "read"):
        connection = _connect(f"{uri}?mode=ro")
        try:
            try:
                empty = _check_version(connection, path)
            except sqlite3.OperationalError:
                # In a folder that cannot be written, WAL's shared-memory file cannot be made. With
                # no log left to replay, the file alone is complete and nobody changes it.
                if _has_log(path):
                    raise
                connection.close()
                connection = _connect(f"{uri}?mode=ro&immutable=1")
                empty = _check_version(connection, path)
            if empty:
                raise StorageError(
                    f"No records in {path.parent} yet: the run has only just begun. "
                    "Try again in a moment."
                )
            if _version(connection) < SCHEMA_VERSION:
                connection = _upgraded(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _connect(uri: str) -> sqlite3.Connection:
    # Transactions are written out (isolation_level None); the store serialises its threads.
    return sqlite3.connect(
        uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )


def _version(connection: sqlite3.Connection) -> int:
    version: int
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return version


def _upgraded(old: sqlite3.Connection) -> sqlite3.Connection:
    """The records of an earlier format in today's tables, in memory; closes the old connection."""
    new = _connect("file::memory:")
    with contextlib.closing(old):
        new.executescript(_TABLES)
        old.execute("BEGIN")  # the records of one moment
        upgrade(old, new)
    new.execute("PRAGMA query_only = ON")
    return new


def _has_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0


def _check_version(connection: sqlite3.Connection, path: Path) -> bool:
    """True for a database without tables; raises where the tables are not ours or too new."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version = _version(connection)
    if not tables and not application:
        return True
    if application != _APPLICATION_ID:
        raise StorageError(
            f"{path.name} in {path.parent} was not written by randprune. Choose another output "
            "folder."
        )
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"{path.name} in {path.parent} has record format {version}, this version of randprune "
            f"reads up to {SCHEMA_VERSION}. Upgrade randprune or choose another output folder."
        )
    return False
