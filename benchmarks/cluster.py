"""A Ray cluster of three nodes on this machine: what it costs, and what it survives.

    python benchmarks/cluster.py faults --work runs/cluster       # minutes
    python benchmarks/cluster.py overhead
    python benchmarks/cluster.py page             # docs/results/cluster.md from the records

faults: a benchmark on digits, undisturbed by local processes, then on the cluster while workers are
killed, nodes are removed (another one is added each time) and the driver is killed, at random
moments. overhead: units of one second, which only wait, on 64 logical CPUs; the time that they took
beside the time that they would take without any overhead, once all workers are there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import randprune
from randprune.bench import BenchRun
from randprune.errors import StorageError
from randprune.executors import Do, OnRay, Tell, Wire, Work
from randprune.report.states import states_of

RECORD = Path("docs/results/cluster.json")
PAGE = Path("docs/results/cluster.md")
KILLS, REMOVALS, DRIVERS = 20, 5, 3
DRAWS = 8
WORKERS, PER_WORKER = 64, 60
MEMORY = 80_000_000


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for a second."""

    number: int


@dataclass(frozen=True, slots=True)
class Waited:
    """When it began and ended."""

    begun: float
    ended: float


def waited(unit: Wait, tell: Tell) -> Waited:
    begun = time.time()
    time.sleep(1.0)
    return Waited(begun, time.time())


def opened(document: Mapping[str, Any]) -> Do[Wait, Waited]:
    return waited


WAITING: Work[Wait, Waited] = Work("cluster", "WAITING", opened, Wire(Wait), Wire(Waited))


def cluster(nodes: int, cpus: int = 1) -> Any:
    """Nodes of this machine, which find what this process finds."""
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    head = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": MEMORY}
    found = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(nodes - 1):
        found.add_node(num_cpus=cpus, object_store_memory=MEMORY)
    return found


def command(out: Path, *options: str) -> list[str]:
    study = ["bench", "smoke", "--draws", str(DRAWS), "--set", "pretrain.epochs=2", "--quiet"]
    return [sys.executable, "-m", "randprune", *study, *options, "--out", str(out)]


def results(out: Path) -> list[Any]:
    return [
        [str(r.row), r.draw, r.epochs, r.test.correct if r.test else r.error, r.proposal.selection]
        for r in BenchRun.load(out).results
    ]


def faults(work: Path, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    source = str(Path(randprune.__file__).resolve().parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    subprocess.run(command(work / "local", "--workers", "2"), env=environment, check=True)
    made = cluster(3)
    out = work / "cluster"
    options = ("--executor", "ray", "--address", made.address)
    done = {"workers": 0, "nodes": 0, "drivers": 0}
    extra = [made.add_node(num_cpus=1, object_store_memory=MEMORY)]
    process = subprocess.Popen(command(out, *options), env=environment)
    try:
        while (code := process.poll()) is None:
            # At random moments: a worker, a node, or the driver.
            time.sleep(chance.uniform(6.0, 14.0))
            kind = chance.choices(["workers", "nodes", "drivers"], [KILLS, REMOVALS, DRIVERS])[0]
            if kind == "nodes" and done["nodes"] < REMOVALS:
                made.remove_node(extra.pop())
                extra.append(made.add_node(num_cpus=1, object_store_memory=MEMORY))
            elif kind == "drivers" and done["drivers"] < DRIVERS:
                process.kill()
                process.wait()
                process = subprocess.Popen(command(out, *options), env=environment)
            elif done["workers"] < KILLS and (workers := serving()):
                kind = "workers"
                os.kill(chance.choice(workers), signal.SIGKILL)
            else:
                continue
            done[kind] += 1
            print(f"{kind[:-1]} lost: {units(out)}; so far {done}", flush=True)
        if code:
            raise RuntimeError(f"The benchmark ended with {code}.")
    finally:
        process.kill()
        made.shutdown()
    return {
        "killed": done,
        "rows": len(results(out)),
        "equal": results(out) == results(work / "local"),
    }


def units(out: Path) -> str:
    try:
        stages = states_of(out)[0].stages
    except (StorageError, IndexError):
        return "nothing yet"
    return ", ".join(f"{stage.done} of {stage.total} {stage.name}" for stage in stages)


def serving() -> list[int]:
    """The processes of workers, as Ray names them."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    return [
        int(line.split()[0]) for line in listed.stdout.splitlines() if "ray::randprune" in line
        or "ray::Serving" in line
    ]  # fmt: skip


def overhead(work: Path) -> dict[str, Any]:
    made = cluster(1, WORKERS)
    work.mkdir(parents=True, exist_ok=True)
    executor = OnRay(WAITING, {}, WORKERS, made.address, work)
    try:
        # Workers are there once each has done a unit.
        first = [Wait(-number) for number in range(1, 6 * WORKERS)]
        list(executor.run(first, lambda unit, share: None))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        every = [Wait(number) for number in range(WORKERS * PER_WORKER)]
        begun = time.monotonic()
        found = [outcome for _, outcome in executor.run(every, lambda unit, share: None)]
        seconds = time.monotonic() - begun
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        slept = sum(o.ended - o.begun for o in found if isinstance(o, Waited))
    finally:
        executor.close()
        made.shutdown()
    return {
        "workers": WORKERS,
        "units": len(found),
        "seconds": round(seconds, 2),
        "efficiency": round(slept / (WORKERS * seconds), 4),
        "driver_mib_before": before // 1024,
        "driver_mib_after": after // 1024,
    }


def page() -> str:
    found = json.loads(RECORD.read_text(encoding="utf-8"))
    lines = [HEAD]
    if of := found.get("faults"):
        killed = of["killed"]
        lines += [
            "| workers killed | nodes removed | drivers killed | rows | table |",
            "|--:|--:|--:|--:|---|",
            f"| {killed['workers']} | {killed['nodes']} | {killed['drivers']} | {of['rows']} | "
            f"{'identical' if of['equal'] else 'DIFFERENT'} |",
        ]
    if of := found.get("overhead"):
        lines += [
            "",
            "Units that only wait for a second, on logical CPUs of one node; the driver's memory "
            "before and after:",
            "",
            "| workers | units of a second | seconds | efficiency | driver's memory |",
            "|--:|--:|--:|--:|--:|",
            f"| {of['workers']} | {of['units']:,} | {of['seconds']:.1f} | {of['efficiency']:.3f} | "
            f"{of['driver_mib_before']}, {of['driver_mib_after']} MiB |",
        ]
    return "\n".join(lines) + "\n"


HEAD = """# On a Ray cluster

```
make integrations                                    # installs Ray, and runs its tests
python benchmarks/cluster.py faults --work runs/cluster
python benchmarks/cluster.py overhead
python benchmarks/cluster.py page
```

Three nodes of one CPU, all on this machine (two cores, other work beside), with a fourth that comes
and goes. The smoke study with eight draws: proposals, trainings and tests of all criteria. Workers
are killed and nodes removed at random moments, the driver is killed and the same command given
again; the table is compared row by row with that of two local processes.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=["faults", "overhead", "page"])
    parser.add_argument("--work", type=Path, default=Path("runs/cluster"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.step == "page":
        PAGE.write_text(page(), encoding="utf-8")
        return
    found = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    made = faults(work, given.seed) if given.step == "faults" else overhead(work)
    found[given.step] = made
    print(made)
    RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
