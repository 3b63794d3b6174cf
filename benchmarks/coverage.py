"""The coverage sweep: every network of a list traced, cut, verified, and put into docs/coverage.md.

    python benchmarks/coverage.py                            # the whole list
    python benchmarks/coverage.py --models tv:resnet18 timm:dla34
    python benchmarks/coverage.py --third 0                  # every third network (0, 1 or 2)
    python benchmarks/coverage.py --missing                  # those without a sound record
    python benchmarks/coverage.py --times                    # the trace's seconds and memory anew

`make coverage` and `make coverage MODELS="tv:resnet18 timm:dla34"` do the same. Networks that are
not on the list appear on the page as such; benchmarks/coverage_more.txt holds many of them.

Each network runs in a process of its own under a time limit, so that one failure ends nothing. The
records are kept in docs/coverage.json; a partial run replaces only the records of what it ran, and
docs/coverage.md is written from all of them. The exit code is 1 where a network failed.

For every network, with random weights at its default input size: the channel groups, the share of
the MACs that they touch, the lowest ratio that `min_keep=0.1` reaches (in the module, and in the
emitted graph), the seconds and the memory of the trace, and at three random configurations - at
50 % of the MACs, or at the lowest ratio - whether the cut network runs, equals the masked dense
one and costs what the polynomial says; and whether it reloads from its file in a fresh process to
the last bit, trains for a step, and exports again.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
PROJECT = BENCHMARKS.parent
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

from coverage_network import (  # noqa: E402
    SEEDS,
    emit_record,
    measure,
    reload,
    run_apart,
    time_trace,
)
from coverage_records import failures, load_records  # noqa: E402

DEFAULT_LIST = BENCHMARKS / "coverage_models.txt"
SHARED_LIST = PROJECT.parent / "shared" / "coverage_models.txt"
RECORDS = PROJECT / "docs" / "coverage.json"
PAGE = PROJECT / "docs" / "coverage.md"


def read_list(path: Path) -> list[str]:
    """The networks of a list: one name a line, comments from '#'."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def sweep(
    names: list[str],
    limit_seconds: float,
    *,
    graph: bool = True,
    peer: bool = True,
    save: bool = True,
    seeds: int = SEEDS,
) -> list[dict[str, Any]]:
    """Measure the networks one after another; returns their records.

    What Torch-Pruning did before stays on record where it is left out or not installed.
    """
    records = []
    options = ("--seeds", str(seeds), *(() if graph else ("--module-only",)))
    before = {record["model"]: record.get("torch_pruning") for record in load_records(RECORDS)}
    peer = peer and find_spec("torch_pruning") is not None
    for number, name in enumerate(names, start=1):
        record = run_apart(Path(__file__).resolve(), name, limit_seconds, options)
        theirs = run_apart(BENCHMARKS / "coverage_peer.py", name, 300) if peer else before.get(name)
        if theirs:
            record["torch_pruning"] = theirs
        record["environment"] = environment_of()
        records.append(record)
        print(f"[{number}/{len(names)}] {one_line(record)}", file=sys.stderr, flush=True)
        if save:
            merge_records(RECORDS, [record])
    return records


def time_again(names: list[str], limit_seconds: float) -> list[dict[str, Any]]:
    """The records of these networks, with the trace in the module measured anew."""
    records = {record["model"]: record for record in load_records(RECORDS)}
    for name in names:
        figures = run_apart(Path(__file__).resolve(), name, limit_seconds, ("--times",))
        print(f"{name}: {figures}", file=sys.stderr, flush=True)
        if "trace_seconds" in figures and "module" in records.get(name, {}):
            module = {**records[name]["module"], **figures}
            module.pop("model", None)
            records[name] = {**records[name], "module": module}
            merge_records(RECORDS, [records[name]])
    return [records[name] for name in names if name in records]


def environment_of() -> dict[str, str]:
    """Versions that the records depend on."""
    import torch

    import randprune

    return {
        "randprune": randprune.__version__,
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
    }


def merge_records(path: Path, records: list[dict[str, Any]]) -> None:
    """Replace these networks' records in the file, atomically, and leave the others."""
    kept = {record["model"]: record for record in load_records(path)}
    kept.update((record["model"], record) for record in records)
    temporary = path.with_suffix(".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(record) for record in kept.values())
    temporary.write_text(f"[\n{lines}\n]\n")
    temporary.replace(path)


def one_line(record: dict[str, Any]) -> str:
    """A record as one line of progress."""
    name, problems = record["model"], failures(record)
    parts = [f"{name}:"]
    for mode in ("module", "graph"):
        result = record.get(mode)
        if result is not None and "lowest" in result:
            parts.append(
                f"{mode} {result['groups']} groups, lowest {result['lowest']:.2f}, "
                f"{result['trace_seconds']:.1f} s, {result['trace_mib']} MiB,"
            )
    peer = record.get("torch_pruning")
    if peer is not None:
        parts.append(f"Torch-Pruning {peer.get('outcome', 'failed')};")
    parts.append("FAIL " + "; ".join(problems) if problems else "ok")
    return " ".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", metavar="NAME", help="instead of the list")
    parser.add_argument("--list", type=Path, help="a file with one network a line")
    parser.add_argument("--third", type=int, choices=(0, 1, 2), help="only every third network")
    parser.add_argument("--missing", action="store_true", help="only those without a sound record")
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help="random configurations a network (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the records")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one network")
    parser.add_argument("--module-only", action="store_true", help="leave the emitted graph out")
    parser.add_argument("--no-peer", action="store_true", help="leave Torch-Pruning out")
    parser.add_argument("--dry-run", action="store_true", help="leave docs/ as it is")
    parser.add_argument("--times", action="store_true", help="only time the trace again")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--reload", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        import torch

        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        if options.reload:
            emit_record(reload(options.one, options.reload))
            return 0
        if options.times:
            emit_record(time_trace(options.one))
            return 0
        emit_record(measure(options.one, not options.module_only, options.seeds))
        return 0
    path = options.list or (SHARED_LIST if SHARED_LIST.is_file() else DEFAULT_LIST)
    names = options.models or read_list(path)
    if options.third is not None:
        names = names[options.third :: 3]
    if options.missing:
        sound = {record["model"] for record in load_records(RECORDS) if not failures(record)}
        names = [name for name in names if name not in sound]
    if options.times:
        records = time_again(names, options.limit)
    else:
        records = sweep(
            names,
            options.limit,
            graph=not options.module_only,
            peer=not options.no_peer,
            save=not options.dry_run,
            seeds=options.seeds,
        )
    if options.json:
        print(json.dumps(records, indent=1))
    if not options.dry_run:
        from coverage_page import render

        PAGE.write_text(render(load_records(RECORDS), read_list(DEFAULT_LIST)))
    wrong = {record["model"]: failures(record) for record in records if failures(record)}
    for name, problems in wrong.items():
        print(f"{name}: {'; '.join(problems)}", file=sys.stderr)
    print(f"{len(records) - len(wrong)} of {len(records)} networks hold", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
