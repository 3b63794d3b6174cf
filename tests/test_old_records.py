"""Records of the first released format: read with the same numbers, and never written to.

`old_records/` holds two runs of that release as SQL, and the tables that it made of them.
"""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from randprune.bench import BenchRun, Row
from randprune.cli.app import app
from randprune.errors import StorageError
from randprune.report import RunRecord
from randprune.store import SEARCHED, RunKey, Store

OLD = Path(__file__).parent / "old_records"


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The output folder of an old run of this kind."""
    out = tmp_path / "out"
    out.mkdir()
    connection = sqlite3.connect(out / "records.sqlite")
    connection.executescript((OLD / f"{request.param}.sql").read_text(encoding="utf-8"))
    connection.close()
    return out


def reported(folder: Path, to: Path) -> Path:
    """The tables that `randprune report` makes."""
    done = CliRunner().invoke(app, ["report", str(folder), "--to", str(to)])
    assert done.exit_code == 0, done.output
    return to / "tables"


def cells(table: Path) -> list[dict[str, str | float]]:
    """The rows of a CSV file, numbers as numbers."""

    def cell(text: str) -> str | float:
        try:
            return float(text)
        except ValueError:
            return text

    with table.open() as file:
        return [{key: cell(text) for key, text in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("folder", ["bench"], indirect=True)
def test_an_old_benchmark_is_reported_with_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    before = (folder / "records.sqlite").read_bytes()
    tables = reported(folder, tmp_path / "report")
    for name in ("results", "candidates", "epochs"):
        assert (tables / f"{name}.csv").read_text() == (OLD / f"bench_{name}.csv").read_text()
    run = BenchRun.load(folder)
    assert run.status == "finished"
    assert run.protocol.reference == Row("random_search", "l1")
    assert {len(training.history) for training in run.trainings} == {1}
    assert run.preparation == ()
    assert (folder / "records.sqlite").read_bytes() == before


@pytest.mark.parametrize("folder", ["prune"], indirect=True)
def test_an_old_job_is_reported_with_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    tables = reported(folder, tmp_path / "report")
    for name in ("networks", "candidates"):
        old = cells(OLD / f"prune_{name}.csv")
        new = cells(tables / f"{name}.csv")
        assert len(new) == len(old)
        for now, then in zip(new, old, strict=True):
            # What a search chose was called "random" then.
            assert {k: v for k, v in now.items() if isinstance(v, str)} == {
                k: SEARCHED if v == "random" else v for k, v in then.items() if isinstance(v, str)
            }
            # The last bits of an interval may differ.
            numbers = {k: v for k, v in then.items() if isinstance(v, float)}
            assert {k: now[k] for k in numbers} == pytest.approx(numbers, rel=1e-12)
    with Store.open(folder, read_only=True) as store:
        record = RunRecord.of(store.latest())
        assert record.winner is not None
        assert record.winner.method == SEARCHED
        assert len(store.latest().candidates(SEARCHED)) == 4
        with pytest.raises(StorageError, match="opened for reading only"):
            store.latest().put("key", 1)


@pytest.mark.parametrize("folder", ["bench", "prune"], indirect=True)
def test_old_records_are_not_continued(folder: Path) -> None:
    before = (folder / "records.sqlite").read_bytes()
    message = r"has record format 1 of an earlier version .* by randprune report, but not continued"
    with pytest.raises(StorageError, match=message), Store.open(folder) as store:
        store.run(RunKey("prune", {}, 0))
    assert (folder / "records.sqlite").read_bytes() == before
