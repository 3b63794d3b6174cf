"""Attacks on the package, counted: tried, survived, lost; their table is in docs/reliability.md.

    python benchmarks/reliability.py                      # every attack, as often as it says
    python benchmarks/reliability.py --only graphs --count 200
    python benchmarks/reliability.py --list
    python benchmarks/reliability.py --page               # the table anew, from the records

An attack is one function in a file benchmarks/reliability_*.py, all of which are imported:

    @attack("graphs", "random networks, traced, cut, verified, saved and loaded", count=2_000)
    def graphs(count: int, seed: int) -> Outcome: ...

It tries `count` things that follow from `seed` and says how they went. `survived` are those that
ended as promised: the right result, or one clear error of randprune's own. Everything else is lost
and described in one line each: a raw exception, a wrong result, lost work. Attacks are divided over
`--processes`, each with a seed of its own.

The records are kept in docs/reliability.json, one an attack; a partial run replaces only those that
it ran. The table goes between the two marks in docs/reliability.md, where that page is there. The
exit code is 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
PROJECT = BENCHMARKS.parent
RECORDS = PROJECT / "docs" / "reliability.json"
PAGE = PROJECT / "docs" / "reliability.md"
BEGIN, END = "<!-- attacks -->", "<!-- end of attacks -->"
# Descriptions of what was lost that a record keeps.
KEPT = 20

if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))


@dataclass
class Outcome:
    """How the tries of one attack went.

    Attributes:
        survived: tries that ended as promised, by how they ended ("equal network", ...).
        lost: one line about each try that did not.
    """

    survived: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return self.survived.total() + len(self.lost)

    def add(self, other: Outcome) -> None:
        """Counts another part of the same attack too."""
        self.survived.update(other.survived)
        self.lost.extend(other.lost)


Run = Callable[[int, int], Outcome]


@dataclass(frozen=True)
class Attack:
    """One row of the table: `run(count, seed)` makes `count` tries."""

    name: str
    what: str
    count: int
    run: Run


ATTACKS: dict[str, Attack] = {}


def attack(name: str, what: str, *, count: int) -> Callable[[Run], Run]:
    """Registers a function as an attack; `what` is what the page says about it."""

    def register(run: Run) -> Run:
        ATTACKS[name] = Attack(name, what, count, run)
        return run

    return register


def load_attacks() -> dict[str, Attack]:
    """All attacks by name, after importing every benchmarks/reliability_*.py."""
    # Under one name, also where this file runs as a script: the attacks register there.
    registry = importlib.import_module("reliability")
    for file in sorted(BENCHMARKS.glob("reliability_*.py")):
        importlib.import_module(file.stem)
    return dict(registry.ATTACKS)


def run(chosen: Attack, count: int, seed: int, processes: int) -> dict[str, Any]:
    """The record of one attack, its tries divided over processes."""
    started = time.monotonic()
    shares = [count // processes + (part < count % processes) for part in range(processes)]
    jobs = [(chosen.name, share, seed + part) for part, share in enumerate(shares) if share]
    whole = Outcome()
    if len(jobs) == 1:
        whole.add(_part(*jobs[0]))
    else:
        with multiprocessing.get_context("spawn").Pool(len(jobs)) as pool:
            for outcome in pool.starmap(_part, jobs):
                whole.add(outcome)
    return {
        "attack": chosen.name,
        "what": chosen.what,
        "tried": whole.tried,
        "survived": dict(whole.survived.most_common()),
        "lost": len(whole.lost),
        "examples": whole.lost[:KEPT],
        "seed": seed,
        "seconds": round(time.monotonic() - started),
        "versions": _versions(),
    }


def _part(name: str, count: int, seed: int) -> Outcome:
    import torch

    torch.set_num_threads(1)
    found: Outcome = load_attacks()[name].run(count, seed)
    return found


def _versions() -> dict[str, str]:
    import torch

    import randprune

    return {"randprune": randprune.__version__, "torch": str(torch.__version__)}


def table(records: list[dict[str, Any]]) -> str:
    """The records as a table in Markdown."""
    lines = ["| attack | tried | survived | lost |", "|---|---:|---:|---:|"]
    for record in sorted(records, key=lambda record: record["attack"]):
        ways = ", ".join(f"{count:,} {how}" for how, count in record["survived"].items())
        survived = sum(record["survived"].values())
        what = record["what"] + (f" ({ways})" if ways else "")
        lines.append(f"| {what} | {record['tried']:,} | {survived:,} | {record['lost']:,} |")
    return "\n".join(lines)


def load_records() -> list[dict[str, Any]]:
    """What earlier runs found."""
    return json.loads(RECORDS.read_text()) if RECORDS.exists() else []


def keep(new: list[dict[str, Any]]) -> None:
    """Puts new records in the place of old ones, and the table into the page."""
    records = {record["attack"]: record for record in [*load_records(), *new]}
    ordered = [records[name] for name in sorted(records)]
    RECORDS.write_text(json.dumps(ordered, indent=1) + "\n")
    if PAGE.exists():
        text = PAGE.read_text()
        if BEGIN in text and END in text:
            before, after = text.partition(BEGIN)[0], text.partition(END)[2]
            PAGE.write_text(f"{before}{BEGIN}\n{table(ordered)}\n{END}{after}")


def main() -> int:
    attacks = load_attacks()
    parser = argparse.ArgumentParser(description="Attacks on the package, counted.")
    parser.add_argument("--only", nargs="+", choices=sorted(attacks), default=sorted(attacks))
    parser.add_argument("--count", type=int, help="tries of each attack; default: its own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="name the attacks and end")
    parser.add_argument("--page", action="store_true", help="write the table and end")
    parser.add_argument("--no-record", action="store_true", help="print the table only")
    given = parser.parse_args()
    if given.list:
        for known in attacks.values():
            print(f"{known.name:12} {known.count:>7,}  {known.what}")
        return 0
    if given.page:
        keep([])
        return 0
    made = [
        run(attacks[name], given.count or attacks[name].count, given.seed, given.processes)
        for name in given.only
    ]
    if not given.no_record:
        keep(made)
    print(table(made))
    for record in made:
        for line in record["examples"]:
            print(f"lost ({record['attack']}): {line}")
    return int(any(record["lost"] for record in made))


if __name__ == "__main__":
    sys.exit(main())
