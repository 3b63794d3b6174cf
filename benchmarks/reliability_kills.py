"""`kill -9` at random moments of a job: the same call goes on, and ends with the same result.

    python benchmarks/reliability_kills.py JOB KILLS SEED    # one attack alone; prints JSON

A moment is the n-th write to the records since the process began, and up to a fifth of a second
after it, so that a busy machine changes nothing about how far a job comes. The job is begun again
in the same folder until it ends, and killed on the way as often as it takes; then another folder
follows. What came out is compared with a job that nobody killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
for _folder in (BENCHMARKS, BENCHMARKS.parent / "tests" / "jobs"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from reliability import Outcome, attack  # noqa: E402

RESULT, LONGEST_DELAY = "result.json", 0.2


@attack("kills-prune", "`kill -9` of `prune` at a random moment, begun again", count=10)
def kills_prune(count: int, start: int) -> Outcome:
    """Of the small job of the tests: search, repair, fine-tuning, test."""
    return _apart("prune", count, start)


@attack("kills-scratch", "`kill -9` of `scratch` at a random moment, begun again", count=10)
def kills_scratch(count: int, start: int) -> Outcome:
    """Of the small job of the tests: shared weights, search, trainings, pre-trained route."""
    return _apart("scratch", count, start)


@attack("kills-bench", "`kill -9` of `bench smoke` at a random moment, begun again", count=15)
def kills_bench(count: int, start: int) -> Outcome:
    """Of the whole study, with its processes."""
    return _apart("bench", count, start)


def _apart(job: str, count: int, start: int) -> Outcome:
    """In a process that forks before it has ever computed anything."""
    command = [sys.executable, __file__, job, str(count), str(start)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    outcome = Outcome(lost=found["lost"])
    if found["survived"]:
        outcome.survived["the same result"] = found["survived"]
    return outcome


# -- jobs: each does its work in a folder, and returns what must be equal -------------------------


def prune(folder: Path) -> Any:
    from pruning_jobs import job

    return _of_network(job(folder))


def scratch(folder: Path) -> Any:
    from scratch_jobs import job

    return _of_network(job(folder))


def bench(folder: Path) -> Any:
    from randprune.bench import BenchRecipe, run_bench
    from randprune.bench.studies import study_file

    run = run_bench(BenchRecipe.load(study_file("smoke")), out=folder)
    results = [[str(r.key), r.status, r.test and r.test.correct, r.proposal.widths]
               for r in run.results]  # fmt: skip
    return [results, run.test_set.before_final, run.test_set.final, len(run.ledger)]


JOBS: dict[str, Callable[[Path], Any]] = {"prune": prune, "scratch": scratch, "bench": bench}
# How many kills one run is meant to meet: few for short jobs, all for the long one.
KILLS_OF_A_RUN = {"prune": 2, "scratch": 3, "bench": 15}


def _of_network(result: Any) -> Any:
    rows = [[c.method, c.index, c.widths, c.scores] for c in result.candidates]
    tested = [[n.label, n.stage, n.seed, n.test and n.test.correct] for n in result.networks]
    digest = hashlib.sha256(Path(result.artifact).read_bytes()).hexdigest()
    return [rows, tested, digest]


# -- killing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """The n-th write of a process, counted from 1, and so many seconds later."""

    write: int
    delay: float


def forked(job: str, folder: Path, moment: Moment | None) -> int:
    """Do a job in a process of its own, killed at a moment; how it ended, as `waitpid` tells."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    os.dup2(2, 1)
    code = 1
    try:
        writes = _count_writes(moment)
        found = JOBS[job](folder / "out")
        (folder / RESULT).write_text(json.dumps({"writes": writes[0], "result": found}))
        code = 0
    except BaseException:
        (folder / "error.txt").write_text(traceback.format_exc())
    os._exit(code)


def _count_writes(moment: Moment | None) -> list[int]:
    from randprune.store import Store

    plain, count = Store.execute, [0]

    def counted(self: Store, *arguments: Any) -> Any:
        count[0] += 1
        if moment is not None and count[0] == moment.write:
            threading.Thread(target=die, daemon=True).start()
        return plain(self, *arguments)

    def die() -> None:
        assert moment is not None
        time.sleep(moment.delay)
        os.kill(os.getpid(), signal.SIGKILL)

    Store.execute = counted  # type: ignore[method-assign]
    return count


def attacked(job: str, kills: int, seed: int, folder: Path) -> tuple[int, list[str]]:
    """How many kills a job survived, and a line for each run whose kills it did not."""
    import numpy as np

    rng = np.random.default_rng(seed)
    whole = folder / "whole"
    whole.mkdir()
    if forked(job, whole, None):
        return 0, [f"{job} does not end at all: {_last_line(whole)}"]
    expected = json.loads((whole / RESULT).read_text())
    span = max(1, 2 * expected["writes"] // (KILLS_OF_A_RUN[job] + 1))
    survived, lost, done, number = 0, list[str](), 0, 0
    while done < kills:
        run, number, met = folder / f"run-{number}", number + 1, list[Moment]()
        run.mkdir()
        while True:
            at = Moment(int(rng.integers(1, span + 1)), float(rng.uniform(0, LONGEST_DELAY)))
            ended = forked(job, run, at if done + len(met) < kills else None)
            if not os.WIFSIGNALED(ended):
                break
            met.append(at)
        done += len(met)
        where = ", ".join(f"write {m.write} + {m.delay:.2f} s" for m in met)
        if ended:
            lost += [f"killed at {where}: {_last_line(run)}"] * max(1, len(met))
            done += not met
        elif json.loads((run / RESULT).read_text())["result"] != expected["result"]:
            lost += [f"killed at {where}: another result"] * max(1, len(met))
            done += not met
        else:
            survived += len(met)
        print(f"{job}: {done} of {kills} kills, {len(lost)} lost", file=sys.stderr)
    return survived, lost


def _last_line(folder: Path) -> str:
    return ((folder / "error.txt").read_text().strip().splitlines() or ["no error"])[-1][:200]


def main() -> None:
    job, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    import torch

    import randprune.jobs  # noqa: F401 - loaded once, for all processes that are forked

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        survived, lost = attacked(job, kills, seed, Path(folder))
    print(json.dumps({"survived": survived, "lost": lost}))


if __name__ == "__main__":
    main()
