"""A whole small benchmark: fair, counted, resumable, and honest about what failed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bench
from tiny_bench import IMAGES, ROWS, Watch

from randprune.bench import BenchRun
from randprune.bench.keys import ProposalKey, Row
from randprune.bench.results import PROPOSE, SCORES, TRAIN
from randprune.bench.units import Propose, step_of
from randprune.errors import InfeasibleBudgetError, StorageError
from randprune.store import UseOfTestSet

EXTRA = {
    "global_ranking": {"criteria": ["l1"], "epochs": [0]},
    "iterative": {"criteria": ["taylor"], "epochs": [0], "options": {"steps": 2}},
    "best_by_proxy": {"criteria": ["l1"], "epochs": [0], "options": {"draws": 50}},
    "eagleeye": {"criteria": ["l1"], "epochs": [0], "options": {"candidates": 3}},
    "evolution": {
        "method": "strategy_search",
        "criteria": ["l1"],
        "epochs": [0],
        "options": {"candidates": 4},
    },
    "lagrangian": {
        "method": "strategy_search",
        "criteria": ["l1"],
        "epochs": [0],
        "options": {"strategy": "lagrangian", "candidates": 2},
    },
    "amc": {"criteria": ["l1"], "epochs": [0], "options": {"episodes": 6, "warmup": 3}},
    "greedy": {"criteria": ["l1"], "epochs": [0], "options": {"step": 0.2}},
    "sensitivity": {"criteria": ["l1"], "epochs": [0], "options": {"levels": 3}},
    "legr": {
        "criteria": ["l1"],
        "epochs": [0],
        "options": {"candidates": 4, "population": 2, "tournament": 2},
    },
    "knapsack": {"criteria": ["taylor"], "epochs": [0]},
    "broken": {"epochs": [0]},
    "looks_around": {"epochs": [0]},
}
CRITERIA = ["l1", "taylor", "unreadable"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench") / "out"


@pytest.fixture(scope="module")
def run(folder: Path) -> BenchRun:
    """A benchmark with all methods of the package, one that fails, and a failing criterion."""
    return tiny_bench.run(folder, methods={**ROWS, **EXTRA}, criteria=CRITERIA)


def widths_of(run: BenchRun, row: Row, draw: int) -> list[tuple[int, ...]]:
    return [candidate.widths for candidate in run.candidates[ProposalKey(row, draw)]]


def test_criteria_see_the_same_configurations_in_a_draw(run: BenchRun) -> None:
    for draw in (0, 1):
        drawn = widths_of(run, Row("random_search", "l1"), draw)
        assert len(drawn) == 3
        assert len(set(drawn)) > 1
        assert widths_of(run, Row("random_search", "taylor"), draw) == drawn
        assert widths_of(run, Row("one_random", "l1"), draw) == drawn[:1]
    assert set(widths_of(run, Row("random_search", "l1"), 0)).isdisjoint(
        widths_of(run, Row("random_search", "l1"), 1)
    )


def test_every_proposal_meets_the_budget_and_is_the_best_candidate(run: BenchRun) -> None:
    made = [p for p in run.proposals if p.status == "ok"]
    assert len(made) == 2 * (2 + 1 + 1 + 1 + 3 + 1 + 8)
    for proposal in made:
        assert abs(proposal.ratio - 0.5) <= 0.03
        assert proposal.search is not None
        assert proposal.test is not None
        if proposal.row.label == "random_search":
            found = run.candidates[proposal.key]
            values = [candidate.scores["minus_kl"] for candidate in found]
            assert proposal.chosen == int(np.argmax(values))
            assert found[proposal.chosen].widths == proposal.widths


def test_the_test_set_is_opened_once_and_after_everything_else(run: BenchRun) -> None:
    assert run.test_set.before_final == 0
    assert run.test_set.final == 1
    assert run.dense.test is not None
    assert run.dense.test.images == 449
    assert all(r.test is not None for r in run.results if r.status == "ok")


def test_what_fails_is_listed_with_its_error_and_the_rest_goes_on(run: BenchRun) -> None:
    assert run.status == "finished"
    failed = {(r.row, r.draw): r.error for r in run.failures}
    assert failed.keys() == {
        (row, draw)
        for row in (Row("broken", "random"), Row("random_search", "unreadable"))
        for draw in (0, 1)
    }
    assert "outside the budget of 0.5" in failed[Row("broken", "random"), 0]
    assert (
        "'unreadable' failed. DataError: these weights"
        in failed[Row("random_search", "unreadable"), 1]
    )
    assert len([r for r in run.results if r.status == "ok"]) == 2 * (4 + 1 + 3 + 1 + 8)


def test_each_result_carries_its_costs(run: BenchRun) -> None:
    by_row = {(r.row, r.draw): r for r in run.results}
    dense, half = run.dense.macs, by_row[Row("one_random", "l1"), 0].proposal.macs
    one, three = by_row[Row("one_random", "l1"), 0], by_row[Row("random_search", "l1"), 0]
    assert one.spent[PROPOSE].candidates == 1
    # The candidate on 150 search images; the proposal's batch norms, and the dense network's
    # moments, on 100 calibration images.
    assert one.spent[PROPOSE].images_forward == 150 + 100 + 100
    assert one.spent[PROPOSE].macs == 250 * half + 100 * dense
    assert three.spent[PROPOSE].images_forward == 3 * 150 + 100 + 100
    booked = {entry.key: entry for entry in run.ledger}
    step = step_of(Propose(ProposalKey(Row("one_random", "l1"), 0)))
    assert booked[step].images_forward == 150 + 100
    assert booked["moments"].images_forward == 100
    assert one.spent[SCORES].images_forward == 0
    assert by_row[Row("random_search", "taylor"), 0].spent[SCORES].images_backward == 100
    assert by_row[Row("random_search", "taylor"), 0].spent[SCORES].macs > 1.5 * 100 * dense
    images = 64 * (1348 // 64)
    assert one.spent[TRAIN].images_backward == images
    assert one.spent[TRAIN].macs == 3 * images * half
    # Its tables come from 64 images at full width, and at four widths of each of two groups.
    tables = 64 * (1 + 4 * 2)
    best = by_row[Row("best_by_proxy", "l1"), 0]
    assert best.spent[PROPOSE].images_forward == 100 + 100 + tables
    assert by_row[Row("best_by_proxy", "l1"), 0].spent[PROPOSE].candidates == 0
    eagle = by_row[Row("eagleeye", "l1"), 0].spent[PROPOSE]
    # Three networks of about half of the MACs on 100 + 150 images; the proposal's batch norms.
    assert eagle.images_forward == 3 * 250 + 100 + 100
    assert eagle.macs < 4 * 250 * half + 100 * dense
    assert by_row[Row("lagrangian", "l1"), 0].spent[PROPOSE].images_forward >= tables
    assert by_row[Row("sensitivity", "l1"), 0].spent[PROPOSE].candidates == 1 + 2 * 3
    assert by_row[Row("knapsack", "taylor"), 0].spent[PROPOSE].candidates == 0
    assert by_row[Row("looks_around", "random"), 0].spent[PROPOSE].macs == pytest.approx(
        (64 + 100) * dense + 100 * by_row[Row("looks_around", "random"), 0].proposal.macs
    )
    assert {entry.phase for entry in run.ledger} == {
        "pretrain", "dense", "calibrate", "scores", "propose", "train", "test",
    }  # fmt: skip


def test_epochs_are_recorded_and_the_last_one_counts(run: BenchRun) -> None:
    trained = [r for r in run.results if r.epochs and r.status == "ok"]
    histories = {t.key: t.history for t in run.trainings}
    assert histories.keys() == {result.key for result in trained}
    assert all(len(history) == 1 for history in histories.values())
    assert all(history[0]["train_loss"] > 0 for history in histories.values())
    seeds = {(t.draw, t.seed) for t in run.trainings}
    assert len(seeds) == 2  # one a draw, the same for all rows


def test_a_finished_benchmark_is_only_read(run: BenchRun, folder: Path) -> None:
    watch = Watch()
    again = tiny_bench.run(folder, watch, methods={**ROWS, **EXTRA}, criteria=CRITERIA)
    assert again.results == run.results
    assert watch.phases.keys() == {"trace"}
    assert not (folder / "work").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> BenchRun:
    """The benchmark that is killed below, uninterrupted."""
    return tiny_bench.run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("phase", "done"), [("propose", 12), ("train", 150)])
def test_a_killed_benchmark_goes_on_with_the_same_results(
    phase: str, done: int, whole: BenchRun, tmp_path: Path
) -> None:
    code = f"import tiny_bench as t; t.run({str(tmp_path)!r}, t.Watch({phase!r}, {done}))"
    folder = Path(tiny_bench.__file__).parent
    killed = subprocess.run([sys.executable, "-c", code], cwd=folder)
    assert killed.returncode == -9
    watch = Watch()
    run = tiny_bench.run(tmp_path, watch)
    assert watch.phases[phase][1] > 0
    assert [(r.key, r.test, r.test_before, r.proposal.widths) for r in run.results] == [
        (r.key, r.test, r.test_before, r.proposal.widths) for r in whole.results
    ]
    assert run.test_set == whole.test_set
    assert len(run.ledger) == len(whole.ledger)


def test_a_process_that_dies_is_replaced(tmp_path: Path) -> None:
    marker = str(tmp_path / "marker")
    once = {"method": "fatal_once", "options": {"marker": marker}}
    run = tiny_bench.run(
        tmp_path / "out",
        methods={**ROWS, "fatal_once": once},
        criteria=["l1"],
        design={"draws": 1, "epochs": [0]},
        output={"workers": 1},
    )
    assert Path(marker).exists()
    assert run.failures == ()
    assert len(run.results) == 5
    assert run.test_set.before_final == 0
    assert run.test_set.final == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"budget": {"ratio": 0.001}}, InfeasibleBudgetError, "reach"),
        ({"data": {**IMAGES, "search": 5000}}, ValueError, "training images cannot give"),
    ],
)
def test_what_cannot_begin_says_so(
    changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        tiny_bench.run(tmp_path, **changes)


def test_a_folder_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner: list[Exception] = []

    class Nested(Watch):
        def start(self, phase: str, total: int, done: int, text: str) -> None:
            if phase == "trace" and not inner:
                try:
                    tiny_bench.run(tmp_path)
                except StorageError as error:
                    inner.append(error)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_bench.run(tmp_path, Nested())
    assert "is in use" in str(inner[0])


def test_the_clock_never_runs_backwards(run: BenchRun, tmp_path: Path) -> None:
    watch = Watch()
    make: Callable[..., BenchRun] = tiny_bench.run
    make(tmp_path, watch, criteria=["l1"], design={"draws": 1, "epochs": [1]})
    for phase, (total, _) in watch.phases.items():
        steps = [done for name, done in watch.steps if name == phase]
        assert steps == sorted(steps)
        assert not steps or steps[-1] == total or phase == "trace"


class Stopped(Watch):
    """Ends the run when a phase has done so much, as Ctrl-C does."""

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        if phase == self.stop_at[0] and done >= self.stop_at[1]:
            raise KeyboardInterrupt


SHORT = {"criteria": ["l1"], "design": {"draws": 1, "epochs": [1]}}


@pytest.fixture(scope="module")
def while_testing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a benchmark that was stopped after its first final evaluation."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    with pytest.raises(KeyboardInterrupt):
        tiny_bench.run(out, Stopped("test", 1), **SHORT)
    run = BenchRun.load(out)
    assert run.status == "interrupted"
    assert run.test_set == UseOfTestSet(before_final=0, final=1)
    assert run.dense.test is not None
    return out


def test_an_interrupted_final_evaluation_goes_on_as_such(
    while_testing: Path, tmp_path: Path
) -> None:
    """The test set is opened again, by another process: not before the final evaluation."""
    again = tmp_path / "again"
    shutil.copytree(while_testing, again)
    run = tiny_bench.run(again, **SHORT)
    assert all(result.test is not None for result in run.results)
    assert run.test_set == UseOfTestSet(before_final=0, final=2)


@pytest.mark.parametrize("kind", ["proposal", "trained"])
def test_what_ends_after_a_final_evaluation_counts_as_chosen_by_it(
    kind: str, while_testing: Path, tmp_path: Path
) -> None:
    """A network that was lost is made again; by then, the test set was open."""
    again = tmp_path / "again"
    shutil.copytree(while_testing, again)
    lost = sorted((again / "work").glob(f"run-1/{kind}-*.safetensors"))
    assert len(lost) == 4  # one a row
    for path in lost[:2]:
        path.unlink()
    run = tiny_bench.run(again, **SHORT)
    assert all(result.test is not None for result in run.results)
    assert run.test_set == UseOfTestSet(before_final=1, final=2)
