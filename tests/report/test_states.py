"""How far runs are, read from outside: `randprune status`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from randprune.bench.keys import Row
from randprune.cli.app import app, main
from randprune.errors import StorageError
from randprune.report.states import Stage, states_of
from randprune.store import Candidate, RunKey, SearchInfo, Store
from randprune.testing import write_bench_run

KEY = RunKey(kind="prune", recipe={}, seed=0, fingerprint="f", weights_hash="w")


def begun(folder: Path) -> None:
    """A search of ten candidates, three of which are there, one of them failed."""
    with Store.open(folder) as store:
        run = store.run(KEY)
        run.write(SearchInfo(10))
        for index, seconds in enumerate((1.0, 2.0, 4.0)):
            candidate = Candidate(index, (1,), seconds={"evaluate": seconds})
            failed = replace(candidate, status="failed", error="planted")
            run.record_candidate(failed if index == 2 else candidate)


def test_a_search_that_was_left(tmp_path: Path) -> None:
    begun(tmp_path)
    (state,) = states_of(tmp_path)
    assert (state.kind, state.state) == ("prune", "interrupted")
    assert state.stages == (Stage("candidates", 3, 10, 2.0, 1),)
    assert state.stages[0].left == 14.0


def test_a_process_that_works_on_it_is_running(tmp_path: Path) -> None:
    begun(tmp_path)
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from randprune.store import Store\n"
        "from test_states import KEY\n"
        f"with Store.open({str(tmp_path)!r}) as store:\n"
        "    run = store.run(KEY)\n"
        "    with run:\n"
        "        print('open', flush=True)\n"
        "        sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        (state,) = states_of(tmp_path)
        assert state.state == "running"
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(60) == 0
    (state,) = states_of(tmp_path)
    assert state.state == "finished"
    assert state.sessions >= 1


def test_a_benchmark_counts_its_units(tmp_path: Path) -> None:
    effects = {Row("random_search", "l1"): 0.0, Row("uniform", "l1"): 0.0}
    effects |= {Row("random_channels", "random"): -0.01}
    write_bench_run(tmp_path, effects, draws=4, epochs=(0, 2), failed=(Row("uniform", "l1"),))
    (state,) = states_of(tmp_path)
    proposals, trainings = state.stages
    assert (proposals.name, proposals.done, proposals.total) == ("proposals", 12, 12)
    assert proposals.failed == 1
    assert (trainings.done, trainings.total, trainings.left) == (11, 11, 0.0)


def test_on_the_command_line(tmp_path: Path) -> None:
    begun(tmp_path)
    shown = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert shown.exit_code == 0
    assert "interrupted" in shown.stdout
    assert "3 of 10, 1 failed" in shown.stdout
    # Nothing runs, so there is nothing to watch.
    found = CliRunner().invoke(app, ["status", str(tmp_path), "--json", "--watch", "86400"])
    (run,) = json.loads(found.stdout)["runs"]
    assert run["stages"][0]["done"] == 3


def test_folders_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == StorageError.exit_code
    assert str(tmp_path) in "".join(capsys.readouterr().err.split("\n"))
    with Store.open(tmp_path):
        pass
    with pytest.raises(StorageError, match="Nothing has been begun"):
        states_of(tmp_path)
