"""Which results of a run the tables are made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from randprune.bench.analysis import Analysis
from randprune.bench.keys import Row
from randprune.bench.records import BenchRun
from randprune.testing.bench_runs import write_bench_run


def main_length(run: BenchRun) -> int | None:
    main = Analysis(run).main
    return None if main is None else main.epochs


def test_tables_are_made_at_the_longest_length_that_most_rows_have(tmp_path: Path) -> None:
    effects = {
        Row("random_search", "l1"): 0.0,
        Row("uniform", "l1"): 0.0,
        Row("random_channels", "random"): -0.01,
    }
    run = write_bench_run(tmp_path, effects, epochs=(0, 1, 4))
    assert main_length(run) == 4

    def without_4(label: str) -> bool:
        return label != "random_search"

    methods = tuple(
        replace(m, epochs=(0, 1)) if without_4(m.label) else m for m in run.protocol.methods
    )
    alone = replace(run, protocol=replace(run.protocol, methods=methods))
    assert main_length(alone) == 1
    assert Analysis(alone).lengths == (0, 1, 4)
    # Trainings that failed change nothing: the length stays what was asked of all rows.
    failed = tuple(
        replace(t, status="failed", error="DataError: planted", test=None)
        if t.epochs == 4 and t.row.label != "random_search"
        else t
        for t in run.trainings
    )
    assert main_length(replace(run, trainings=failed)) == 4
