"""A whole small benchmark from scratch: fair, counted, resumable, and reported in its own words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bench
from tiny_bench import SCRATCH, Watch

from randprune.bench import BenchRecipe, BenchRun
from randprune.bench.analysis import Analysis
from randprune.bench.keys import ProposalKey, Row
from randprune.bench.results import PROPOSE, SHARED, TRAIN
from randprune.errors import InvalidInputError
from randprune.report import report_of, write_report

METHODS = {**SCRATCH["methods"], "looks_around": {}, "foresees": {}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "out"


@pytest.fixture(scope="module")
def run(folder: Path) -> BenchRun:
    """With a method that has no use for criteria, and one that fails for want of a network."""
    return tiny_bench.run_scratch(folder, methods=METHODS)


def result(run: BenchRun, label: str, draw: int = 0, epochs: int = 2) -> Any:
    found = [r for r in run.results if (r.row.label, r.draw, r.epochs) == (label, draw, epochs)]
    assert len(found) == 1
    return found[0]


# ---------------------------------------------------------------------------- what is done


def test_every_row_is_trained_by_the_same_recipe_and_seeds_the_dense_network_too(
    run: BenchRun,
) -> None:
    labels = ["random_search", "uniform", "one_random", "looks_around", "foresees", "dense"]
    assert [row.label for row in run.protocol.rows] == labels
    assert run.protocol.compared == run.protocol.rows[:-1]
    sound = [label for label in labels if label != "foresees"]
    for label in sound:
        for draw in (0, 1):
            for epochs in (1, 2):
                assert result(run, label, draw, epochs).test.images == 449
    seeds = {(t.draw, t.seed) for t in run.trainings}
    assert len(seeds) == 2  # one a draw, the same for all rows
    assert len(run.trainings) == 2 * 2 * len(sound)
    assert run.test_set.before_final == 0
    assert run.test_set.final == 1


def test_proposals_meet_the_original_networks_budget_in_wider_layers(run: BenchRun) -> None:
    original = run.space.groups
    assert [group.width for group in original] == [12, 16]
    made = [p for p in run.proposals if p.status == "ok" and p.row.label != "dense"]
    assert all(abs(p.ratio - 0.5) <= 0.03 for p in made)
    assert any(w > g.width for p in made for w, g in zip(p.widths, original, strict=True))
    assert result(run, "dense").proposal.widths == (12, 16)
    assert result(run, "dense").proposal.macs == run.dense.macs
    uniform = {result(run, label, draw).proposal.widths
               for label in ("uniform", "looks_around") for draw in (0, 1)}  # fmt: skip
    assert uniform == {(8, 11)}


def test_a_search_compares_by_shared_weights(run: BenchRun) -> None:
    for draw in (0, 1):
        proposal = result(run, "random_search", draw).proposal
        pool = run.candidates[proposal.key]
        values = [candidate.scores["search_top1"] for candidate in pool]
        assert proposal.chosen == int(np.argmax(values))
        assert proposal.search.share == pytest.approx(max(values))
        single = run.candidates[ProposalKey(Row("one_random", "scratch"), draw)]
        assert [c.widths for c in single] == [pool[0].widths]
        assert result(run, "uniform", draw).proposal.search.images == 150
        assert result(run, "random_search", draw).test_before is None
    assert [row.epoch for row in run.preparation] == [1, 2, 3]


def test_only_a_search_is_charged_the_shared_weights(run: BenchRun) -> None:
    booked = {entry.key: entry for entry in run.ledger}
    assert booked["supernet"].images_backward == 3 * 64 * (1098 // 64)
    searched = result(run, "random_search")
    assert searched.spent[SHARED].macs == booked["supernet"].macs_spent
    assert searched.spent[PROPOSE].candidates == 4
    assert searched.spent[PROPOSE].images_forward == 4 * (150 + 100)
    for label in ("uniform", "one_random", "looks_around", "dense"):
        assert SHARED not in result(run, label).spent
    assert result(run, "uniform").total.macs == result(run, "uniform").spent[TRAIN].macs
    images = 2 * 64 * (1348 // 64)
    assert result(run, "dense").total.macs == 3 * images * run.dense.macs
    assert {entry.phase for entry in run.ledger} == {"supernet", "propose", "train", "test"}


def test_what_needs_a_trained_network_fails_with_a_reason(run: BenchRun) -> None:
    assert run.status == "finished"
    assert {(r.row.label, r.draw, r.epochs) for r in run.failures} == {
        ("foresees", draw, epochs) for draw in (0, 1) for epochs in (1, 2)
    }
    assert "Use task.evaluate, or a benchmark of the setting" in run.failures[0].error


def test_a_finished_benchmark_is_only_read(run: BenchRun, folder: Path) -> None:
    watch = Watch()
    again = tiny_bench.run_scratch(folder, watch, methods=METHODS)
    assert again.results == run.results
    assert watch.phases.keys() == {"trace"}


# ---------------------------------------------------------------------------- the report


def test_the_report_speaks_of_networks_from_scratch(run: BenchRun, tmp_path: Path) -> None:
    paths = write_report(run, tmp_path)
    page = paths.html.read_text().replace("\u00a0", " ")
    for wrong in ("fine-tun", "Fine-tun", "repair", "riterion", "riteria", "random ranking"):
        assert wrong not in re.sub(r"<script.*?</script>", "", page, flags=re.S), wrong
    for said in (
        "every result is trained from random weights, the dense network too",
        "the runner alone cuts it, trains it from random weights and tests it",
        "Is the search over widths worth its cost?",
        "times the compute of one of uniform, shared weights and search included",
        "With the compute that random search takes in all after 1 epoch, every row in its longest",
        "The dense network, trained in the same way, lies ",
        "How much does the training length matter?",
        "Do shared weights rank networks as training alone does?",
        "Kendall&#39;s tau with the test accuracy after training, over 8 proposed networks: "
        "accuracy with shared weights",
        "0 times before the final evaluation",
        "or other shared weights than these",
        "Shared weights, epochs",
        "Training, lr",
    ):
        assert said in page, said
    names = {path.name for path in (*paths.csv, *paths.tex)}
    assert {"leaderboard.csv", "leaderboard.tex", "ranks.csv", "equal_compute.csv"} <= names


def test_the_leaderboard_ends_with_the_dense_network_without_a_verdict(run: BenchRun) -> None:
    report = report_of(run)
    board = report.results
    assert "of 3 rows" in report.headline
    assert board is not None
    assert board.rows[-1][0].text == "dense network"
    shown = {column.name: cell.text for column, cell in zip(board.columns, board.rows[-1],
                                                            strict=True)}  # fmt: skip
    assert shown["verdict"] == "–"
    assert shown["ratio"] == "100.0 %".replace(" ", "\u00a0")
    assert re.fullmatch(r"[+−]\d+\.\d\d|0\.00", shown["difference"])
    titles = {column.name: column.title for column in board.columns}
    assert titles["difference"] == "Points to the reference"
    rows: Any = report.summary["rows"]
    told = {row["row"].partition("/")[0]: row for row in rows}
    assert told["dense"]["difference"] is not None
    assert {label for label, row in told.items() if row["verdict"] is None} == {
        "dense", "random_search", "foresees",
    }  # fmt: skip
    assert [c.name for c in Analysis(run).at[2].comparisons] == [
        Row(label, "scratch") for label in ("uniform", "one_random", "looks_around")
    ]


# ---------------------------------------------------------------------------- stop and go on


class Interrupted(Watch):
    """Ends the run in a phase, as Ctrl-C does."""

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        if phase == self.stop_at[0] and done > self.stop_at[1]:
            raise KeyboardInterrupt


def test_an_interrupted_benchmark_goes_on_with_the_same_results(
    run: BenchRun, tmp_path: Path
) -> None:
    for watch in (Interrupted("prepare", 40), Interrupted("train", 150)):
        with pytest.raises(KeyboardInterrupt):
            tiny_bench.run_scratch(tmp_path, watch, methods=METHODS)
    watch = Watch()
    again = tiny_bench.run_scratch(tmp_path, watch, methods=METHODS)
    assert watch.phases["train"][1] > 0
    assert [(r.key, r.test, r.proposal.search, r.proposal.widths) for r in again.results] == [
        (r.key, r.test, r.proposal.search, r.proposal.widths) for r in run.results
    ]
    assert [(e.key, e.macs_spent) for e in again.ledger] == [
        (e.key, e.macs_spent) for e in run.ledger
    ]
    assert again.test_set == run.test_set


def test_processes_find_what_one_process_finds(run: BenchRun, tmp_path: Path) -> None:
    one = tiny_bench.run_scratch(
        tmp_path, design={"draws": 1, "epochs": [1]}, output={"workers": 1}
    )
    assert [r.test for r in one.results] == [
        result(run, r.row.label, 0, 1).test for r in one.results
    ]  # fmt: skip
    assert len(one.results) == 4


# ---------------------------------------------------------------------------- recipes


ROWS = SCRATCH["methods"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"spec": "tiny_bench:Tiny", "weights": "w.pt"}}, "model.weights has no meaning"),
        ({"model": {"spec": "tiny_bench:Tiny", "as_graph": True}}, "cannot be widened"),
        ({"pretrain": {}}, r"\[pretrain\] has no meaning .* trained beside the others"),
        ({"finetune": {"lr": 0.1}}, r"\[finetune\] has no meaning .* these keys in \[training"),
        ({"criteria": ["l1"]}, "criteria has no meaning .* no criterion ranks channels"),
        ({"recovery": "bn"}, "recovery has no meaning .* no trained weights to repair"),
        ({"proposals": {"rank_by": "kl"}}, "Give accuracy or loss"),
        ({"training": {"distill_weight": 0.5}}, "training.distill_weight .* no trained teacher"),
        ({"supernet": {"distill_weight": 0.5}}, "supernet.distill_weight .* no trained teacher"),
        ({"supernet": {"distill": True}}, "Set supernet.sandwich = true"),
        ({"design": {"epochs": [0, 2]}}, "0 in design.epochs .* lengths of 1 and more"),
        ({"methods": {**ROWS, "uniform": {"epochs": [0]}}}, "0 in methods.uniform.epochs"),
        ({"methods": {**ROWS, "uniform": {"criteria": ["l1"]}}}, "uniform.criteria has no meaning"),
        ({"methods": {**ROWS, "dense": {"method": "uniform"}}}, "Choose another name"),
        ({"methods": {**ROWS, "random_channels": {}}}, r"\[methods.random_channels\] needs a tra"),
        ({"methods": {**ROWS, "best_by_proxy": {}}}, r"\[methods.best_by_proxy\] needs"),
        ({"methods": {**ROWS, "iterative": {}}}, r"\[methods.iterative\] needs"),
        ({"methods": {**ROWS, "r": {"method": "global_ranking"}}}, r"\[methods.r\] needs"),
        ({"methods": {k: v for k, v in ROWS.items() if k != "random_search"}},
         r"needs a row of random_search, .* an empty table \[methods.random_search\]"),
        ({"methods": {k: v for k, v in ROWS.items() if k != "one_random"}},
         "needs a row of random_configuration, one random .* candidates = 1"),
        ({"setting": "pretrained", "supernet": None, "training": None, "widen": {"factor": 2.0}},
         r"\[widen\] is for networks from scratch"),
        ({"training": {"warmup_epochs": 1.5}}, r"warmup_epochs \(1.5\) must not exceed epochs \(1"),
        ({"training": {"warmup": 1}}, "Did you mean 'training.warmup_epochs'"),
    ],
)  # fmt: skip
def test_what_means_nothing_from_scratch_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        tiny_bench.scratch_recipe(**changes)


def test_a_recipe_comes_back_from_its_file_with_the_defaults_of_the_setting(
    tmp_path: Path,
) -> None:
    recipe = BenchRecipe.parse({"setting": "scratch"})
    assert list(recipe.methods) == ["random_search", "uniform", "random_configuration"]
    assert recipe.design.epochs == (20,)
    assert recipe.proposals.rank_by == "accuracy"
    assert recipe.trained_by.lr == 0.1
    assert recipe.reference == Row("random_search", "scratch")
    assert BenchRecipe.load(recipe.save(tmp_path / "bench.toml")) == recipe
