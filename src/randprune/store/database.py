"""Records of an output folder: `Store` opens them, `Run` reads and writes one job's.

Every write is one committed transaction when it returns, so a job killed at any moment finds
everything that it recorded, and nothing half. Writing needs the folder's lock; reading never does.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from randprune.errors import StorageError
from randprune.provenance import provenance, shared_names
from randprune.store import lock, schema
from randprune.store.codec import content_hash, encode
from randprune.store.rows import RunKind
from randprune.store.run import Run
from randprune.store.schema import now


@dataclass(frozen=True, slots=True)
class RunKey:
    """What makes two jobs the same job, so that the second continues the first.

    `recipe`: everything that decides the result, JSON-ready; leave out what does not (output
    folder, number of threads, verbosity), or a changed value starts a new run.
    """

    kind: RunKind
    recipe: Mapping[str, Any]
    seed: int
    fingerprint: str = ""
    weights_hash: str = ""
    data_fingerprint: str = ""
    recipe_hash: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe_hash", content_hash(self.recipe))

    @property
    def digest(self) -> str:
        """Hash of all parts, equal for equal jobs in any process."""
        return content_hash(
            {
                "kind": self.kind,
                "recipe": self.recipe_hash,
                "seed": str(self.seed),
                "fingerprint": self.fingerprint,
                "weights": self.weights_hash,
                "data": self.data_fingerprint,
            }
        )


class Store:
    """The records of one output folder, `records.sqlite`.

    Use as a context manager, or call `close`. A writing store holds the folder's lock until then,
    or until its process ends. Safe to use from several threads; not across a fork.
    """

    def __init__(
        self,
        folder: Path,
        connection: sqlite3.Connection,
        guard: sqlite3.Connection | None,
    ) -> None:
        self.folder = folder
        self.read_only = guard is None
        self._connection = connection
        self._guard = guard
        self._lock = threading.RLock()
        self._path = folder / schema.FILE_NAME
        self._depth = 0
        self._pid = os.getpid()

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, read_only: bool = False) -> Store:
        """The records of `folder`, created where missing; `read_only` neither creates nor locks.

        Raises:
            StorageError: the folder cannot be written or is in use by another process, or its
                records are not a database, not ours, or of a newer format; says what to do.
        """
        path = Path(folder)
        database = path / schema.FILE_NAME
        if read_only:
            return cls(path, schema.connect_reader(database), None)
        with schema.storage_errors(database, "create"):
            path.mkdir(parents=True, exist_ok=True)
        guard = lock.acquire(path)
        if guard is None:
            raise StorageError(
                f"The output folder {path} is in use by {_holder(database)}. "
                "Wait until it ends, or choose another output folder."
            )
        try:
            store = cls(path, schema.connect_writer(database), guard)
            # The lock is ours, so whoever has not said that it ended was killed.
            store.execute("UPDATE sessions SET ended = 'killed' WHERE ended = ''")
            return store
        except BaseException:
            guard.close()
            raise

    def close(self) -> None:
        """Release the database and the folder. Runs still going count as interrupted."""
        with self._lock:
            if self._guard is not None and os.getpid() == self._pid:
                # Best effort: what could not be written at a full disk is found on the next start.
                with contextlib.suppress(StorageError, sqlite3.Error):
                    self.execute("UPDATE sessions SET ended = ? WHERE ended = ''", (now(),))
            self._connection.close()
            if self._guard is not None:
                self._guard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, key: RunKey, made_with: Mapping[str, Any] | None = None) -> Run:
        """The run of this `key`: the one begun or finished earlier, else a new one.

        `Run.resumed` tells which. An unfinished run is marked running again; a finished one stays
        finished, with all its records.

        Args:
            key: what makes it the same job.
            made_with: provenance of this process, default `randprune.provenance.provenance()`.
        """
        session = encode(provenance() if made_with is None else made_with, "provenance")
        with self.transaction():
            found = self.rows("SELECT id, status FROM runs WHERE key = ?", (key.digest,))
            if found:
                run_id, status = found[0]
                if status != "finished":
                    self.execute(
                        "UPDATE runs SET status = 'running', error = '', finished = '' "
                        "WHERE id = ?",
                        (run_id,),
                    )
            else:
                run_id = self.execute(
                    "INSERT INTO runs (key, kind, recipe, recipe_hash, seed, fingerprint, "
                    "weights_hash, data_fingerprint, provenance, status, started) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'running', ?)",
                    (
                        key.digest,
                        key.kind,
                        encode(shared_names(key.recipe)[0], "recipe"),
                        key.recipe_hash,
                        str(key.seed),
                        key.fingerprint,
                        key.weights_hash,
                        key.data_fingerprint,
                        session,
                        now(),
                    ),
                ).lastrowid
            self.execute(
                "INSERT INTO sessions (run, pid, started, provenance) VALUES (?, ?, ?, ?)",
                (run_id, os.getpid(), now(), session),
            )
        return Run(self, int(run_id or 0), resumed=bool(found))

    def runs(self) -> tuple[Run, ...]:
        """All runs, in the order in which they were begun."""
        return tuple(
            Run(self, row[0], resumed=True) for row in self.rows("SELECT id FROM runs ORDER BY id")
        )

    def latest(self) -> Run:
        """The run that was worked on last.

        Raises:
            StorageError: the folder holds no run yet.
        """
        rows = self.rows("SELECT run FROM sessions ORDER BY id DESC LIMIT 1")
        if not rows:
            raise StorageError(f"No run in {self.folder} yet. Give the output folder of a run.")
        return Run(self, rows[0][0], resumed=True)

    def get(self, run_id: int) -> Run:
        """The run with this id.

        Raises:
            StorageError: there is none; gives the ids there are.
        """
        ids = [run.id for run in self.runs()]
        if run_id not in ids:
            raise StorageError(f"No run {run_id} in {self.folder}. Its runs: {ids}.")
        return Run(self, run_id, resumed=True)

    def is_live(self) -> bool | None:
        """Whether a process is writing to this folder now; None where it cannot be found out."""
        return True if not self.read_only else lock.is_held(self.folder)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Several writes as one: all of them are kept, or none. May be nested."""
        with self._lock:
            self._check_process()
            if self.read_only:
                raise StorageError(
                    f"The records of {self.folder} were opened for reading only. "
                    "Open them with Store.open(folder)."
                )
            # A nested one is a savepoint, so that a caller who survives its error keeps the rest.
            begin, commit, undo = (
                ("SAVEPOINT nested", "RELEASE nested", "ROLLBACK TO nested; RELEASE nested")
                if self._depth
                else ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
            )
            self._depth += 1
            try:
                self._statement(begin)
                yield
                self._statement(commit)
            except BaseException:
                # SQLite has rolled back by itself after some errors, a full disk among them.
                with contextlib.suppress(sqlite3.Error):
                    for statement in undo.split("; "):
                        if self._connection.in_transaction:
                            self._connection.execute(statement)
                raise
            finally:
                self._depth -= 1

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reads inside see the records of one moment, whatever a job writes meanwhile."""
        with self._lock:
            self._check_process()
            if self._connection.in_transaction:
                yield
                return
            self._statement("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")

    def execute(self, sql: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Run one writing statement, in the transaction at hand or in its own."""
        storable = _storable(values)
        with self._lock:
            if self._depth:
                return self._statement(sql, storable)
            with self.transaction():
                return self._statement(sql, storable)

    def rows(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        """What one reading statement returns."""
        with self._lock:
            self._check_process()
            with schema.storage_errors(self._path, "read"):
                return self._connection.execute(sql, _storable(values)).fetchall()

    def _statement(self, sql: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        with schema.storage_errors(self._path, "write"):
            return self._connection.execute(sql, values)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise StorageError(
                f"The records of {self.folder} were opened in process {self._pid} and are used in "
                f"its fork {os.getpid()}, which would corrupt them. Record in the parent process."
            )


def _storable(values: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(_column(value) for value in values)


def _column(value: object) -> object:
    if isinstance(value, str):
        # Text from the file system may hold lone surrogates, which UTF-8 cannot encode.
        return value.encode("utf-8", "replace").decode()
    # SQLite would store NumPy's numbers as bytes that no query finds again.
    return value.item() if isinstance(value, np.generic) else value


def _holder(database: Path) -> str:
    """Who holds the lock, as far as the records tell."""
    try:
        with contextlib.closing(schema.connect_reader(database)) as connection:
            row = connection.execute(
                "SELECT pid, started FROM sessions WHERE ended = '' ORDER BY id DESC LIMIT 1"
            ).fetchone()
    except (StorageError, sqlite3.Error):
        row = None
    return f"process {row[0]}, at work since {row[1]}" if row else "another process"
