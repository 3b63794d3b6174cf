"""One job's records: candidates, networks, epochs, milestones, ledger and how it ended."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from randprune.errors import InvalidInputError, StorageError
from randprune.provenance import portable
from randprune.store.codec import Json, decode, encode, pack_widths, unpack_widths
from randprune.store.rows import (
    SEARCHED,
    Candidate,
    CostEntry,
    EpochRow,
    Item,
    Milestone,
    NetworkRow,
    RunInfo,
    RunStatus,
    Session,
)
from randprune.store.schema import now

M = TypeVar("M", bound=Milestone)
ItemT = TypeVar("ItemT", bound=Item)
T = TypeVar("T")

_INT64 = 1 << 63
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


class Tables(Protocol):
    """What a run needs of the store that holds it; see `Store`, which is one."""

    @property
    def folder(self) -> Path:
        """Where the records are."""
        ...

    def runs(self) -> tuple[Run, ...]:
        """All runs of the store."""
        ...

    def is_live(self) -> bool | None:
        """Whether a process is writing to it now."""
        ...

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """Several writes as one."""
        ...

    def snapshot(self) -> contextlib.AbstractContextManager[None]:
        """Reads of one moment."""
        ...

    def execute(self, sql: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Run one writing statement."""
        ...

    def rows(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        """The rows that one statement reads."""
        ...


class Run:
    """One job's records. Get it from `Store.run`, `Store.runs` or `Store.latest`.

    As a context manager it ends the run: finished on a clean exit, interrupted on Ctrl-C, failed
    with the error's text otherwise. The exception goes on.
    """

    def __init__(self, store: Tables, run_id: int, *, resumed: bool) -> None:
        self.store = store
        self.id = run_id
        self.resumed = resumed

    # -- state ---------------------------------------------------------------------------------

    @property
    def info(self) -> RunInfo:
        """The run's own row, as it is now."""
        rows = self.store.rows(
            "SELECT id, kind, recipe, recipe_hash, seed, fingerprint, weights_hash, "
            "data_fingerprint, provenance, status, started, finished, error FROM runs "
            "WHERE id = ?",
            (self.id,),
        )
        row = list(rows[0])
        row[2], row[4], row[8] = decode(row[2]), int(row[4]), decode(row[8])
        return RunInfo(*row)

    @property
    def finished(self) -> bool:
        """Whether the run has ended well; its results are in the records."""
        status: RunStatus = self.info.status
        return status == "finished"

    @property
    def at_work(self) -> bool:
        """Whether a process works on it now: its last session is open, and its folder in use.

        Other runs of the same folder may be at work. Where the lock cannot be asked for (a folder
        of somebody else's), the records are believed.
        """
        sessions = self.sessions()
        return bool(sessions) and not sessions[-1].ended and self.store.is_live() is not False

    @property
    def threads(self) -> int | None:
        """How many threads the run began with; None where that is not known."""
        cpu = self.info.provenance.get("cpu")
        found = cpu.get("threads") if isinstance(cpu, dict) else None
        return found if isinstance(found, int) else None

    def finish(self) -> None:
        """Mark the run finished."""
        self._end("finished", "")

    def fail(self, error: str) -> None:
        """Mark the run failed; the same key continues it."""
        self._end("failed", error)

    def interrupt(self) -> None:
        """Mark the run interrupted; the same key continues it."""
        self._end("interrupted", "")

    def _end(self, status: RunStatus, error: str) -> None:
        ended = now()
        with self.store.transaction():
            # What has finished stays so, at its time: opening it again to report adds nothing.
            self.store.execute(
                "UPDATE runs SET status = ?, finished = ?, error = ? "
                "WHERE id = ? AND status != 'finished'",
                (status, ended, portable(error), self.id),
            )
            self.store.execute(
                "UPDATE sessions SET ended = ? WHERE run = ? AND ended = ''", (ended, self.id)
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
            return
        # The job's own error must come through, also where the disk is too full to note it.
        with contextlib.suppress(StorageError):
            if isinstance(error, Exception):
                self.fail(f"{type(error).__name__}: {error}")
            else:
                self.interrupt()

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """Several writes as one; see `Store.transaction`."""
        return self.store.transaction()

    # -- candidates ----------------------------------------------------------------------------

    def candidate(self, index: int, method: str = SEARCHED) -> Candidate | None:
        """The recorded candidate, or None where it still has to be made."""
        rows = self._candidate_rows("AND method = ? AND idx = ?", (method, index))
        return rows[0] if rows else None

    def candidates(self, method: str | None = None) -> tuple[Candidate, ...]:
        """The recorded candidates, of one method or all, by method and index."""
        if method is None:
            return self._candidate_rows("", ())
        return self._candidate_rows("AND method = ?", (method,))

    def record_candidate(self, candidate: Candidate, ledger: Iterable[CostEntry] = ()) -> None:
        """Record a candidate with what it cost, on the disk when this returns.

        The same (method, criterion, draw, index) again replaces it.
        """
        with self.store.transaction():
            self.store.execute(
                "INSERT OR REPLACE INTO candidates (run, method, criterion, draw, idx, widths, "
                "seed, costs, scores, seconds, selection, status, error) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self.id,
                    candidate.method,
                    candidate.criterion,
                    candidate.draw,
                    candidate.index,
                    pack_widths(candidate.widths),
                    None if candidate.seed is None else str(candidate.seed),
                    encode(candidate.costs, "costs"),
                    encode(candidate.scores, "scores"),
                    encode(candidate.seconds, "seconds"),
                    candidate.selection,
                    candidate.status,
                    portable(candidate.error),
                ),
            )
            for entry in ledger:
                self.add_cost(entry)

    def record_candidates(self, candidates: Iterable[Candidate]) -> None:
        """Record many at once, all or none: one wait for the disk instead of one each."""
        with self.store.transaction():
            for candidate in candidates:
                self.record_candidate(candidate)

    def _candidate_rows(self, where: str, values: tuple[object, ...]) -> tuple[Candidate, ...]:
        rows = self.store.rows(
            "SELECT idx, widths, method, criterion, draw, seed, costs, scores, seconds, selection, "
            f"status, error FROM candidates WHERE run = ? {where} "
            "ORDER BY method, criterion, draw, idx",
            (self.id, *values),
        )
        return tuple(
            Candidate(
                index=row[0],
                widths=unpack_widths(row[1]),
                method=row[2],
                criterion=row[3],
                draw=row[4],
                seed=None if row[5] is None else int(row[5]),
                costs=decode(row[6]),
                scores=decode(row[7]),
                seconds=decode(row[8]),
                selection=row[9],
                status=row[10],
                error=row[11],
            )
            for row in rows
        )

    # -- networks and epochs -------------------------------------------------------------------

    def put_network(self, row: NetworkRow) -> None:
        """Record a network at a stage; the same (label, stage, seed) again replaces it."""
        self.store.execute(
            "INSERT INTO networks (run, label, stage, seed, role, row) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET role = excluded.role, row = excluded.row",
            (
                self.id,
                row.label,
                row.stage,
                "" if row.seed is None else str(row.seed),
                row.role,
                encode(row, "network"),
            ),
        )

    def networks(self) -> tuple[NetworkRow, ...]:
        """All recorded networks, in the order in which they were first recorded."""
        rows = self.store.rows("SELECT row FROM networks WHERE run = ? ORDER BY id", (self.id,))
        return tuple(_typed(NetworkRow, decode(row[0])) for row in rows)

    def record_epoch(
        self,
        network: str,
        epoch: int,
        metrics: Mapping[str, float],
        ledger: Iterable[CostEntry] = (),
    ) -> None:
        """Record the metrics of a finished epoch, counted from 1; again replaces them."""
        with self.store.transaction():
            self.store.execute(
                "INSERT OR REPLACE INTO epochs VALUES (?, ?, ?, ?)",
                (self.id, network, epoch, encode(metrics, "metrics")),
            )
            for entry in ledger:
                self.add_cost(entry)

    def epochs(self, network: str | None = None) -> tuple[EpochRow, ...]:
        """The recorded epochs, of one network or all, by network and epoch."""
        rows = self.store.rows(
            "SELECT network, epoch, metrics FROM epochs WHERE run = ? "
            "AND (? IS NULL OR network = ?) ORDER BY network, epoch",
            (self.id, network, network),
        )
        return tuple(EpochRow(row[0], row[1], decode(row[2])) for row in rows)

    # -- milestones ----------------------------------------------------------------------------

    def put(self, key: str, value: object) -> None:
        """Record a JSON-ready value under `key`; again replaces it."""
        self.store.execute(
            "INSERT INTO milestones (run, key, value, time) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET value = excluded.value, time = excluded.time",
            (self.id, key, encode(value, key), now()),
        )

    def get(self, key: str, default: Json = None) -> Json:
        """The value under `key`, or `default`."""
        rows = self.store.rows(
            "SELECT value FROM milestones WHERE run = ? AND key = ?", (self.id, key)
        )
        return decode(rows[0][0]) if rows else default

    def milestones(self) -> dict[str, Json]:
        """All values by key, in the order in which the keys were first recorded."""
        rows = self.store.rows(
            "SELECT key, value FROM milestones WHERE run = ? ORDER BY id", (self.id,)
        )
        return {key: decode(value) for key, value in rows}

    def write(self, milestone: Milestone) -> None:
        """Record a typed milestone under its `KEY`; again replaces it."""
        self.put(milestone.KEY, milestone)

    def read(self, kind: type[M]) -> M | None:
        """The milestone of this class, or None where it is not recorded yet.

        Raises:
            StorageError: what is recorded does not fit.
        """
        found = self.get(kind.KEY)
        return None if found is None else _typed(kind, found)

    def recorded(self, kind: type[M]) -> M:
        """The milestone of this class.

        Raises:
            StorageError: it is not recorded, or does not fit.
        """
        found = self.read(kind)
        if found is None:
            raise StorageError(
                f"The records of run {self.id} in {self.store.folder} have no {kind.KEY!r}. "
                "Give the same command again: it does what is missing."
            )
        return found

    # -- items ---------------------------------------------------------------------------------

    def record_item(self, item: Item) -> None:
        """Record one of many; the same key of its kind again replaces it."""
        self.store.execute(
            "INSERT INTO items (run, kind, key, value) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET value = excluded.value",
            (self.id, item.KIND, encode(item.key, "key"), encode(item, item.KIND)),
        )

    def items(self, kind: type[ItemT]) -> tuple[ItemT, ...]:
        """All items of this class, in the order in which they were first recorded."""
        rows = self.store.rows(
            "SELECT value FROM items WHERE run = ? AND kind = ? ORDER BY id", (self.id, kind.KIND)
        )
        return tuple(_typed(kind, decode(row[0])) for row in rows)

    # -- ledger --------------------------------------------------------------------------------

    def add_cost(self, entry: CostEntry) -> None:
        """Record what a step cost; the same key again replaces it, so nothing counts twice."""
        for name in ("candidates", "images_forward", "images_backward"):
            if not 0 <= getattr(entry, name) < _INT64:
                raise InvalidInputError(
                    f"The '{name}' parameter of CostEntry must be a count. "
                    f"Got {getattr(entry, name)!r} instead."
                )
        self.store.execute(
            "INSERT INTO ledger (run, key, phase, candidates, images_forward, images_backward, "
            "macs_spent, seconds, device) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET phase = excluded.phase, candidates = excluded.candidates, "
            "images_forward = excluded.images_forward, "
            "images_backward = excluded.images_backward, macs_spent = excluded.macs_spent, "
            "seconds = excluded.seconds, device = excluded.device",
            (
                self.id,
                entry.key,
                entry.phase,
                int(entry.candidates),
                int(entry.images_forward),
                int(entry.images_backward),
                _finite(entry.macs_spent, "macs_spent"),
                _finite(entry.seconds, "seconds"),
                entry.device,
            ),
        )

    def ledger(self) -> tuple[CostEntry, ...]:
        """All entries, in the order in which they were first recorded."""
        rows = self.store.rows(
            "SELECT phase, key, candidates, images_forward, images_backward, macs_spent, seconds, "
            "device FROM ledger WHERE run = ? ORDER BY id",
            (self.id,),
        )
        return tuple(CostEntry(*row) for row in rows)

    def sessions(self) -> tuple[Session, ...]:
        """The processes that worked on this run, in order."""
        rows = self.store.rows(
            "SELECT started, ended, provenance FROM sessions WHERE run = ? ORDER BY id", (self.id,)
        )
        return tuple(Session(row[0], row[1], decode(row[2])) for row in rows)


def _typed(kind: type[T], value: Json) -> T:
    adapter = _ADAPTERS.setdefault(kind, TypeAdapter(kind))
    try:
        result: T = adapter.validate_python(value)
    except ValidationError as error:
        raise StorageError(
            f"A stored {kind.__name__} does not fit this version of randprune: "
            f"{error.error_count()} fields differ, the first is '{_place(error)}'. "
            "Use the version that wrote it, or a new output folder."
        ) from error
    return result


def _place(error: ValidationError) -> str:
    return ".".join(map(str, error.errors()[0]["loc"]))


def _finite(value: float, where: str) -> float:
    encode(value, where)
    return float(value)
