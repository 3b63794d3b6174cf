"""Processes that do units: who gets what, what is told, and what happens when they die."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiny_bench

from randprune.bench import pool
from randprune.bench.pool import Failure, Processes
from randprune.bench.units import Outcome, Unit
from randprune.errors import StorageError

# A process that answers as it is told by the unit's label; "die" ends it.
SCRIPT = """
import json, sys
sys.stdin.readline()
for line in sys.stdin:
    asked = json.loads(line)
    answer = asked["unit"]["label"].replace("THREADS", str(asked["threads"]))
    if answer == "die":
        print("sorry", file=sys.stderr)
        sys.exit(3)
    for part in answer.split(";"):
        print(part, flush=True)
"""
DONE = '{"outcome": {"opened": THREADS}}'


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processes:
    monkeypatch.setattr(pool, "_COMMAND", [sys.executable, "-c", SCRIPT])
    return Processes(tiny_bench.recipe(), tmp_path, 2, "cpu")


def run(processes: Processes, *labels: str) -> tuple[dict[str, Outcome | Failure], list[float]]:
    units = [Unit("propose", f"unit {i}", label) for i, label in enumerate(labels)]
    shares: list[float] = []
    try:
        found = processes.run(units, lambda unit, share: shares.append(share))
        return {unit.key: outcome for unit, outcome in found}, shares
    finally:
        processes.close()


def test_each_unit_comes_back_with_its_outcome(processes: Processes) -> None:
    found, shares = run(processes, *['{"share": 0.5};' + DONE] * 5)
    assert found == {f"unit {i}": Outcome(opened=1) for i in range(5)}
    assert shares == [0.5] * 5


def test_an_error_is_the_units_alone(processes: Processes) -> None:
    failure = '{"failure": "DataError", "text": "no images"}'
    found, _ = run(processes, DONE, failure, DONE)
    assert found["unit 1"] == Failure("DataError: no images")
    assert sum(isinstance(outcome, Outcome) for outcome in found.values()) == 2


def test_a_unit_that_kills_every_process_fails_with_their_last_words(processes: Processes) -> None:
    found, _ = run(processes, DONE, "die", DONE)
    assert found["unit 1"] == Failure("Its process died 3 times, at last by exit code 3. sorry")
    assert isinstance(found["unit 2"], Outcome)


def test_a_full_disk_ends_the_run(processes: Processes) -> None:
    with pytest.raises(StorageError, match="no space"):
        run(processes, '{"fatal": "StorageError", "text": "no space"}', DONE)


def test_a_cut_off_answer_is_no_answer(processes: Processes) -> None:
    found, _ = run(processes, '{"outco', DONE)
    assert "unit 1" in found
    assert isinstance(found["unit 0"], Failure)
