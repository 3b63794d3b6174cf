"""Nothing on a page is computed twice: no statistic, no table, no figure."""

from __future__ import annotations

import inspect
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from randprune.bench import BenchRun, analysis
from randprune.bench.keys import Row
from randprune.report import RunRecord, report_of
from randprune.report.bench import (
    figures as bench_figures,
    findings,
    records as bench_records,
    tables as bench_tables,
)
from randprune.report.run import (
    analysis as run_analysis,
    figures as run_figures,
    tables as run_tables,
)
from randprune.report.write import write_files
from randprune.store import Accuracy
from randprune.testing import write_bench_run

STATISTICS = (
    "at_equal_compute",
    "best_of_n",
    "compare_with_baseline",
    "kendall_tau",
    "mean_interval",
    "speedup",
    "variance_split",
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each statistic was computed, and each table and figure built."""
    counted: Counter[str] = Counter()

    def count(module: ModuleType, name: str, key: str) -> None:
        found = getattr(module, name)

        def counting(*args: Any, **options: Any) -> Any:
            counted[key] += 1
            return found(*args, **options)

        monkeypatch.setattr(module, name, counting)

    for module in (analysis, run_analysis):
        for name in STATISTICS:
            if hasattr(module, name):
                count(module, name, name)
    for kind, modules in {
        "bench": (bench_tables, bench_records, bench_figures, findings),
        "run": (run_tables, run_figures),
    }.items():
        for module in modules:
            for name, function in inspect.getmembers(module, inspect.isfunction):
                parts = inspect.signature(function).parameters
                of_a_run = next(iter(parts), "") in ("analysis", "record")
                if function.__module__ == module.__name__ and of_a_run and name[0] != "_":
                    count(module, name, f"{kind} {module.__name__}.{name}")

    results = BenchRun.results.fget
    assert results is not None

    def counting_results(run: BenchRun) -> Any:
        counted["results"] += 1
        return results(run)

    interval = Accuracy.interval

    def counting_interval(accuracy: Accuracy, confidence: float = 0.95) -> Any:
        counted["Wilson"] += 1
        return interval(accuracy, confidence)

    monkeypatch.setattr(BenchRun, "results", property(counting_results))
    monkeypatch.setattr(Accuracy, "interval", counting_interval)
    return counted


def test_a_bench_page_computes_each_statistic_once(calls: Counter[str], tmp_path: Path) -> None:
    effects = {
        Row("random_search", "l1"): 0.0,
        Row("random_search", "kl"): 0.01,
        Row("uniform", "l1"): -0.02,
    }
    run = write_bench_run(tmp_path / "run", effects, epochs=(0, 1, 4), draws=4, trainings=2)
    calls.clear()
    report = report_of(run)
    write_files(report, tmp_path / "report")
    assert report.results is not None
    rows, lengths = 3, 3
    assert calls["results"] == 1
    assert calls["compare_with_baseline"] == lengths
    assert calls["variance_split"] == rows * lengths * 2  # by source, and together
    assert calls["at_equal_compute"] == rows * lengths
    # Of each row and length on the test set and before training; gains; ranks within searches.
    assert calls["mean_interval"] == rows * lengths * 2 + rows + 3
    assert calls["best_of_n"] == 1
    # Within the 12 searches three pairs of scores; five scores of networks; the order of rows.
    assert calls["kendall_tau"] == 12 * 3 + 10 + 1
    assert calls["Wilson"] == 1  # the dense network
    built = {key: count for key, count in calls.items() if key.startswith("bench ")}
    assert len(built) > 25
    assert set(built.values()) == {1}, built


def test_a_run_page_computes_each_statistic_once(
    calls: Counter[str], finished: RunRecord, tmp_path: Path
) -> None:
    calls.clear()
    write_files(report_of(finished), tmp_path)
    tests = {row.test for row in finished.networks if row.test is not None}
    assert calls["Wilson"] == len(tests)
    assert calls["best_of_n"] == 1
    assert calls["kendall_tau"] == 1
    assert calls["speedup"] == 3  # one a pruned network
    built = {key: count for key, count in calls.items() if key.startswith("run ")}
    assert len(built) > 10
    assert set(built.values()) == {1}, built
