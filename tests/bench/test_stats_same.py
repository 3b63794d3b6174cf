"""A/A tables: rows that are the same method are told apart as rarely as the level says."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from randprune.bench.analysis import Analysis
from randprune.bench.keys import Row
from randprune.bench.stats import Pair, compare_with_baseline, same_method
from randprune.errors import InvalidInputError
from randprune.testing.bench_runs import write_bench_run

RESULTS = Path(__file__).parents[2] / "docs" / "results"
Table = dict[str, dict[Pair, float]]


def rows(rng: np.random.Generator, count: int = 9, draws: int = 5, trainings: int = 1) -> Table:
    """Rows of one method: a draw moves all of them, a configuration each one, a training little."""
    common = rng.normal(0.9, 0.01, draws)
    found: Table = {}
    for number in range(count):
        own = common + rng.normal(0.0, 0.01, draws)
        found[f"row {number}"] = {
            (d, t): float(own[d] + rng.normal(0.0, 0.001))
            for d in range(draws)
            for t in range(trainings)
        }
    return found


@pytest.mark.parametrize("trainings", [1, 4])
def test_of_normal_numbers_one_table_in_twenty_tells_rows_apart(trainings: int) -> None:
    """With four trainings a configuration, whoever took each for a unit would find far more."""
    rng = np.random.default_rng(trainings)
    found = [
        same_method(rows(rng, trainings=trainings), margin=0.005, tables=20, seed=seed)
        for seed in range(50)
    ]
    assert 0.01 < np.mean([check.share for check in found]) <= 0.06


def test_who_takes_trainings_for_configurations_is_found_out() -> None:
    """The check can fail: the same results, each training passed off as a draw of its own."""
    rng, told = np.random.default_rng(0), 0
    for _ in range(20):
        wrong = {
            row: {(pair, 0): value for pair, value in found.items()}
            for row, found in rows(rng, trainings=4).items()
        }
        judged = compare_with_baseline(wrong, "row 0", margin=1e-6)
        told += any(c.verdict in ("better", "worse") for c in judged)
    assert told >= 10


@pytest.mark.parametrize("study", ["f1", "f2"])
def test_of_committed_results_no_more_than_one_table_in_twenty(study: str) -> None:
    """Each row about its own mean: what is left is chance, as it was in trained networks."""
    path = RESULTS / f"{study}-resnet20-cifar10" / "tables" / "results.csv"
    table: Table = {}
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            pair = (int(line["draw"]), int(line["training"]))
            table.setdefault(line["row"], {})[pair] = float(line["test_top1"])
    for found in table.values():
        mean, count = np.mean(list(found.values())), len(found)
        for pair, value in found.items():
            found[pair] = float((value - mean) * (count / (count - 1)) ** 0.5)
    check = same_method(table, margin=0.005, tables=200, resolution=1e-4)
    assert (check.rows, check.tables) == (len(table), 200)
    assert check.share <= 0.05


def test_the_same_results_in_all_rows_are_equivalent() -> None:
    one = rows(np.random.default_rng(0), count=1)["row 0"]
    check = same_method(dict.fromkeys("abc", one), margin=0.005, tables=5)
    assert (check.told, check.equivalent) == (0, 1.0)
    assert check.interval[0] == 0.0


def test_too_little() -> None:
    table = rows(np.random.default_rng(0), count=2)
    with pytest.raises(InvalidInputError, match=r"at least 3 rows .* Got 2 rows with 5"):
        same_method(table, margin=0.005)
    apart = {name: {(name, 0): 0.9} for name in "abc"}
    with pytest.raises(InvalidInputError, match="Got 3 rows with 0"):
        same_method(apart, margin=0.005)


def test_a_run_knows_its_rows_of_one_method(tmp_path: Path) -> None:
    effects = {Row(label, "l1"): 0.0 for label in "abcd"} | {Row("uniform", "l1"): -0.05}
    run = write_bench_run(tmp_path, effects, draws=4)
    assert Analysis(run).same is None, "four methods of different names"
    methods = tuple(
        replace(m, method="random_search", options={"candidates": 4, "stream": number})
        if m.label != "uniform"
        else m
        for number, m in enumerate(run.protocol.methods)
    )
    same = replace(run, protocol=replace(run.protocol, methods=methods))
    check = Analysis(same).same
    assert check is not None
    assert (check.rows, check.draws) == (4, 4)
    other = tuple(replace(m, options={"candidates": 8}) if m.label in "cd" else m for m in methods)
    assert Analysis(replace(run, protocol=replace(run.protocol, methods=other))).same is None
