"""Who does units: what comes of each, what is told, and what happens when processes die."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from halving import WORK, Half, Halve, Threads, halve

from randprune.errors import InvalidInputError, StorageError
from randprune.executors import Failure, InProcess, Processes, Wire, processes

# A process that answers what the unit's label says, line by line; "die" ends it.
SCRIPT = """
import json, sys
sys.stdin.readline()
for line in sys.stdin:
    asked = json.loads(line)["Asked"]
    said = TOLD[int(asked["unit"]["Halve"]["number"])]
    if said == ["die"]:
        print("sorry", file=sys.stderr)
        sys.exit(3)
    for part in said:
        print(part.replace("THREADS", str(asked["threads"])), flush=True)
"""
DONE = ['{"Found": {"outcome": {"Half": {"value": THREADS}}}}']


def run(
    told: list[list[str]], logs: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Half | Failure], list[float]]:
    """What comes of units, in their order, whose processes answer what they are told."""
    script = SCRIPT.replace("TOLD", repr(told))
    monkeypatch.setattr(processes, "_COMMAND", (sys.executable, "-c", script))
    executor = Processes(WORK, {"factor": 1}, 2, logs)
    shares: list[float] = []
    try:
        units = [Halve(number) for number in range(len(told))]
        found = dict(executor.run(units, lambda unit, share: shares.append(share)))
        return [found[unit] for unit in units], shares
    finally:
        executor.close()


def test_each_unit_comes_back_with_its_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, shares = run([['{"Share": {"share": 0.5}}', *DONE]] * 5, tmp_path, monkeypatch)
    assert found == [Half(1)] * 5
    assert shares == [0.5] * 5


def test_an_error_is_the_units_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = ['{"Failure": {"error": "DataError: no images"}}']
    found, _ = run([DONE, failure, DONE], tmp_path, monkeypatch)
    assert found == [Half(1), Failure("DataError: no images"), Half(1)]


def test_a_unit_that_kills_every_process_fails_with_their_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = run([DONE, ["die"], DONE], tmp_path, monkeypatch)
    died = Failure("Its process died 3 times, at last by exit code 3. sorry")
    assert found == [Half(1), died, Half(1)]


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="no space"):
        run([['{"Fatal": {"kind": 0, "text": "no space"}}'], DONE], tmp_path, monkeypatch)


@pytest.mark.parametrize("answer", ['{"Foun', '{"Fond": {}}', "[1]", '{"Found": {}}'])
def test_an_answer_that_says_nothing_is_no_answer(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = run([[answer], DONE], tmp_path, monkeypatch)
    assert isinstance(found[0], Failure)
    assert found[0].error.startswith("Its process died 3 times, at last by signal SIGKILL.")
    assert found[1] == Half(1)


def test_processes_find_what_this_process_finds(tmp_path: Path) -> None:
    units = [Halve(1 / 3), Halve(-1.0), Halve(math.pi)]
    failure = Failure("DataError: no half of -1.0")
    shares: list[tuple[Halve | Threads, float]] = []
    here = InProcess(halve)
    assert dict(here.run(units, lambda unit, share: shares.append((unit, share)))) == {
        units[0]: Half(1 / 6), units[1]: failure, units[2]: Half(math.pi / 2),
    }  # fmt: skip
    assert shares == [(unit, 0.5) for unit in units]
    with pytest.raises(StorageError, match="no space"):
        list(here.run([Halve(0.0)], lambda unit, share: None))

    elsewhere = Processes(WORK, {"factor": 2}, 1, tmp_path)
    shares.clear()
    try:
        found = dict(elsewhere.run(units, lambda unit, share: shares.append((unit, share))))
        assert found == {
            units[0]: Half(1 / 3), units[1]: failure, units[2]: Half(math.pi),
        }  # fmt: skip
        assert shares == [(unit, 0.5) for unit in units]
        one, two = Threads(), Halve(2.0)
        assert dict(elsewhere.run([one, two], lambda unit, share: None))[one] == Half(2.0)
        with pytest.raises(StorageError, match="no space"):
            list(elsewhere.run([Halve(0.0)], lambda unit, share: None))
    finally:
        elsewhere.close()
    assert "DataError: no half of -1.0" in (tmp_path / "worker-0.log").read_text()


def test_what_goes_to_processes_comes_back_as_it_was() -> None:
    wire: Wire[Halve | Threads] = Wire(Halve, Threads)
    for unit in (Halve(0.1 + 0.2), Halve(5e-324), Threads()):
        assert wire.value(wire.document(unit)) == unit
    with pytest.raises(InvalidInputError, match=r"Cannot store nan at Halve\.number"):
        wire.document(Halve(math.nan))
    with pytest.raises(ValueError, match="not one of Halve, Threads"):
        wire.value({"Double": {}})
