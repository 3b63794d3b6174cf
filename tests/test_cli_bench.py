"""`randprune bench` from the command line: a small part of the smoke study, its plan, its files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from randprune.cli.bench import FAILED_ROWS

SMALL = (
    "bench", "smoke", "--draws", "1", "--workers", "0", "--quiet",
    "--set", 'criteria=["l1", "taylor"]', "--set", "pretrain.epochs=2",
    "--set", "methods.random_search.options.candidates=2", "--set", "data.calibration=64",
)  # fmt: skip


def test_a_study_by_name_with_settings(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed, _ = run(*SMALL, "--json", "-o", str(out))
    assert code == 0
    found = json.loads(printed)
    rows = ["random_search/l1", "random_search/taylor", "uniform/l1",
            "random_channels/random"]  # fmt: skip
    assert [result["row"] for result in found["results"]] == rows
    assert all(result["test"] > 0.5 for result in found["results"])
    assert found["test_set_before_final"] == 0
    with (out / "tables" / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["row"] for line in lines] == rows
    assert float(lines[1]["compute_macs"]) > float(lines[0]["compute_macs"])  # it looks at images
    assert Path(found["files"]["report"]).exists()


def test_rows_that_fail_show_in_the_exit_code(run: Any, tmp_path: Path) -> None:
    code, printed, _ = run(
        *SMALL, "-o", str(tmp_path), "--set", "finetune.lr=1e30", "--set", 'criteria=["l1"]'
    )
    assert code == FAILED_ROWS
    assert printed.count("Failed: ") == 3
    assert "The loss became" in printed


def test_the_plan_counts_and_estimates(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed, _ = run(*SMALL, "--dry-run", "--json", "-o", str(out))
    assert code == 0
    plan = json.loads(printed)
    assert (plan["proposals"], plan["trainings"], plan["candidates"]) == (4, 4, 4)
    assert plan["seconds"]["train"] > 0
    assert not out.exists()
    code, printed, _ = run(*SMALL, "--dry-run", "-o", str(out))
    assert "random_search/taylor" in printed
    assert "4 epochs of 1,348 images" in printed


def test_the_plan_of_a_study_from_scratch_says_what_is_trained(run: Any, tmp_path: Path) -> None:
    code, printed, _ = run(
        "bench", "scratch", "--model", "randprune:digits_cnn", "--data", "digits", "--dry-run",
        "--draws", "2", "--workers", "2", "-o", str(tmp_path / "out"), "--quiet",
        "--set", "data.calibration=64", "--set", "data.search=100",
        "--set", "budget.tolerance=0.02",
    )  # fmt: skip
    assert code == 0
    assert "4: random_search, uniform, random_configuration, dense" in printed
    assert "weights of all widths, 5 epochs of 1,184 images: under a minute" in printed
    assert "16 from random weights, 120 epochs of 1,348 images in all" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", "scratch", "--weights", "w.pt"), "model.weights has no meaning with setting"),
        (("bench", "smoek"), "Did you mean 'smoke'"),
        (("bench", "none.toml"), "cannot be read"),
        (("bench", "f1"), "no trained weights"),
        (("bench", "smoke", "--set", "draws=2"), "Unknown key 'draws'"),
    ],
)
def test_what_cannot_be_meant(run: Any, arguments: tuple[str, ...], message: str) -> None:
    code, _, errors = run(*arguments, "--quiet")
    assert code == 2
    assert message in " ".join(errors.split())


def test_the_whole_of_f1_on_digits(run: Any, tmp_path: Path) -> None:
    """What `make bench-smoke` does: every criterion, three draws, fine-tuned, in one command."""
    code, printed, _ = run("bench", "smoke", "--quiet", "--workers", "1", "--json", "-o",
                           str(tmp_path))  # fmt: skip
    assert code == 0
    found = json.loads(printed)
    rows = {
        f"random_search/{name}"
        for name in (
            "l1", "l2", "geometric_median", "taylor", "empirical_sensitivity", "kl", "bn_scale",
            "reconstruction", "chip", "lamp", "random",
        )
    }  # fmt: skip
    rows |= {"uniform/l1", "random_channels/random"}
    tested = [r for r in found["results"] if r["status"] == "ok" and r["epochs"] == 1]
    assert {r["row"] for r in tested} == rows
    assert len(tested) == 3 * len(rows)
    assert all(0.5 < r["test"] <= 1 for r in tested)
    assert found["test_set_before_final"] == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "F1: does the criterion matter under random configurations?" in page
