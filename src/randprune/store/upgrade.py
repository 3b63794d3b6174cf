"""Reads records of format 1, the first that was released, as if they had today's format.

Format 1 named what belongs together by one composed text, such as "random_search/l1/draw-0", and
the configuration that a search chose by "random". The file stays as it is: its rows are brought to
today's tables in memory. This is the only place that takes such texts apart.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from randprune.store.codec import Json, decode, encode
from randprune.store.rows import SEARCHED, Winner

_SAME = ("runs", "sessions", "networks", "ledger")
_CHOSEN = "random"
"""What format 1 called the method and the role of what a search chose, in jobs."""


def upgrade(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Fill the tables of `new`, which are today's and empty, with the records of `old`."""
    for table in _SAME:
        _copy(new, table, old.execute(f"SELECT * FROM {table}"))
    bench = {run for run, kind in old.execute("SELECT id, kind FROM runs") if kind == "bench"}
    _copy(new, "candidates", (_candidate(row, bench) for row in old.execute(
        "SELECT run, method, idx, widths, seed, costs, scores, seconds, selection, status, error "
        "FROM candidates"
    )))  # fmt: skip
    histories: dict[tuple[int, str], list[tuple[int, str]]] = {}
    for run, network, epoch, metrics in old.execute("SELECT * FROM epochs ORDER BY network, epoch"):
        histories.setdefault((run, network), []).append((epoch, metrics))
    milestones = old.execute("SELECT id, run, key, value, time FROM milestones ORDER BY id")
    for number, run, key, value, time in milestones:
        kind, _, name = key.partition("/")
        if run in bench and kind in ("proposal", "training"):
            epochs = histories.pop((run, name), [])
            item = _item(decode(value), [decode(metrics) for _, metrics in epochs])
            _copy(new, "items", [(number, run, kind, encode(item["key"]), encode(item))])
        else:
            _copy(new, "milestones", [(number, run, key, _milestone(key, value), time)])
    for (run, network), epochs in histories.items():
        _copy(new, "epochs", [(run, network, epoch, metrics) for epoch, metrics in epochs])
    new.execute("UPDATE networks SET role = ? WHERE role = ?", (SEARCHED, _CHOSEN))
    for number, row in new.execute("SELECT id, row FROM networks").fetchall():
        network = decode(row)
        if network["role"] == _CHOSEN:
            text = encode({**network, "role": SEARCHED})
            new.execute("UPDATE networks SET row = ? WHERE id = ?", (text, number))
    new.commit()


def _copy(new: sqlite3.Connection, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    for row in rows:
        new.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def _candidate(row: tuple[Any, ...], bench: set[int]) -> tuple[Any, ...]:
    run, method, *rest = row
    if run not in bench:
        return (run, SEARCHED if method == _CHOSEN else method, "", 0, *rest)
    name, _, draw = method.rpartition("/draw-")
    found = _row(name)
    return (run, found["label"], found["criterion"], int(draw), *rest)


def _item(value: dict[str, Json], history: list[Json]) -> dict[str, Json]:
    """A proposal or a training, whose key was in fields of its own."""
    key: dict[str, Json] = {"row": _row(value.pop("row")), "draw": value.pop("draw")}
    if "training" in value:
        epochs, training = value.pop("epochs"), value.pop("training")
        key = {"proposal": key, "epochs": epochs, "training": training}
        return {"key": key, **value, "history": history}
    return {"key": key, **{k: v for k, v in value.items() if k not in ("label", "criterion")}}


def _milestone(key: str, text: str) -> str:
    if key == Winner.KEY:
        value = decode(text)
        return encode({**value, "method": SEARCHED}) if value["method"] == _CHOSEN else text
    if key == "bench_protocol":
        value = decode(text)
        return encode({**value, "reference": _row(value["reference"])})
    return text


def _row(name: str) -> Mapping[str, str]:
    label, _, criterion = name.partition("/")
    return {"label": label, "criterion": criterion}
