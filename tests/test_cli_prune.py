"""`randprune prune` from the command line: a whole small job, its files, and its recipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import randprune as rp
from randprune.cli import main
from randprune.cli.flags import Asked
from randprune.cli.recipes import job_recipe
from randprune.recipe import PruneRecipe
from randprune.report import RunRecord
from randprune.zoo.models import build_model

DIGITS = "randprune:digits_cnn"
SMALL_JOB = (
    DIGITS, "--data", "digits", "--budget", "0.5", "-n", "2", "--finalists", "1",
    "--recovery", "bn", "--calibration", "32", "--search-images", "64",
    "--set", "finalists.recovery=", "--set", "output.latency_seconds=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for the digits network; untrained ones do for what is tested here."""
    import safetensors.torch

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    safetensors.torch.save_file(build_model(DIGITS).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def finished(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a finished small job."""
    out = tmp_path_factory.mktemp("job") / "out"
    arguments = ("prune", *SMALL_JOB, "--weights", str(weights), "-o", str(out), "--quiet")
    assert main(arguments) == 0
    return out


def test_the_network_meets_the_budget_and_reloads(finished: Path) -> None:
    small = rp.load(finished / "pruned.safetensors")
    images = torch.zeros(1, 1, 8, 8)
    macs = rp.trace(small, images).cost("macs").dense
    dense = rp.trace(build_model(DIGITS), images).cost("macs").dense
    assert abs(macs / dense - 0.5) <= 0.005
    assert (finished / "report.html").stat().st_size > 10_000


def test_export_quantises_on_the_images_of_the_run(
    run: Any, finished: Path, weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    file, target = finished / "pruned.safetensors", tmp_path / "small.onnx"
    asked = ("export", str(file), "-o", str(target), "--int8")
    code, out, err = run(*asked, "--weights", str(weights), "--json")
    assert code == 0, err
    arms = json.loads(out)["arms"]
    assert [arm["name"] for arm in arms] == ["dense", "dense, int8", "pruned", "pruned, int8"]
    quantised = tmp_path / "small.int8.onnx"
    assert quantised.stat().st_size == arms[3]["size_bytes"] < target.stat().st_size
    lost = tmp_path / "alone.safetensors"
    lost.write_bytes(file.read_bytes())
    code, _, err = run("export", str(lost), "-o", str(target), "--int8")
    assert (code, "in the folder of its run" in err) == (2, True)


def test_a_finished_job_is_read_not_repeated(run: Any, finished: Path, weights: Path) -> None:
    before = (finished / "pruned.safetensors").stat().st_mtime_ns
    arguments = ("prune", *SMALL_JOB, "--weights", str(weights), "-o", str(finished))
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["status"] == "finished"
    assert document["candidates"] >= 2
    assert Path(document["network"]) == finished / "pruned.safetensors"
    assert (finished / "pruned.safetensors").stat().st_mtime_ns == before
    code, out, _ = run(*arguments)
    assert code == 0
    assert "of the MACs" in out
    assert f"Report:  {finished / 'report.html'}" in out
    assert f"Recipe:  {finished / 'recipe.toml'}" in out


def test_the_recipe_that_a_run_writes_reproduces_it(
    run: Any, finished: Path, weights: Path, tmp_path: Path
) -> None:
    recipe = finished / "recipe.toml"
    other = tmp_path / "again"
    # Its weights lay outside of the working folder: the recipe does not tell where, and asks.
    assert "#   --set model.weights=.../digits.safetensors\n" in recipe.read_text()
    given = ("--weights", str(weights))
    code, _, err = run("prune", "--recipe", str(recipe), *given, "-o", str(other), "--json")
    assert code == 0, err
    first, again = (rp.load(folder / "pruned.safetensors") for folder in (finished, other))
    assert [tuple(p.shape) for p in first.parameters()] == [
        tuple(p.shape) for p in again.parameters()
    ]
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    )
    # Only where results go differs between the two recipes.
    texts = [(folder / "recipe.toml").read_text() for folder in (finished, other)]
    assert len({text.partition("[output]")[0] for text in texts}) == 1


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("prune", DIGITS, "--data", "digits", "--epochs", "4", "--dry-run")
    assert (code, err) == (0, "")
    for words in (
        "1.63",
        "none: the network starts untrained",
        "50.0",
        "lagrangian",
        "4 epochs",
        "runs",
    ):
        assert words in out
    paper = ("--preset", "paper", "--seed", "7", "--dry-run", "--json")
    code, out, _ = run("prune", DIGITS, "--data", "digits", *paper)
    document = json.loads(out)
    assert document["recipe"]["seed"] == 7
    assert document["law"] in ("rejection", "shifted")
    assert list(tmp_path.iterdir()) == []


def test_the_default_folder_leaves_other_settings_of_the_output_alone() -> None:
    given = {"model.spec": DIGITS, "data.spec": "digits"}
    plain = job_recipe(PruneRecipe, Asked(given))
    asked = job_recipe(PruneRecipe, Asked(given, settings=["output.latency_seconds=0.5"]))
    assert asked.output.latency_seconds == 0.5
    assert asked.output.folder == plain.output.folder


def test_the_default_folder_is_the_same_for_the_same_settings(run: Any) -> None:
    def folder(*arguments: str) -> str:
        out = run("prune", DIGITS, "--data", "digits", "--dry-run", "--json", *arguments)[1]
        return str(json.loads(out)["recipe"]["output"]["folder"])

    assert folder() == folder()
    assert folder().startswith(str(Path("runs") / "digits_cnn-0.5-"))
    assert folder("--seed", "1") != folder()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "digits"], 2, "No network is given. Name it first"),
        ([DIGITS], 2, "No images are given. Give --data"),
        ([DIGITS, "--data", "digitz"], 2, "Did you mean 'digits'?"),
        ([DIGITS, "--data", "npz:nowhere"], 6, "'nowhere' does not exist"),
        ([DIGITS, "--data", "digits", "--budget", "1.5"], 2, "'budget.ratio'"),
        ([DIGITS, "--data", "digits", "--budget", "0.001"], 4, "reached with min_keep 0.1"),
        ([DIGITS, "--data", "digits", "--criterion", "l3"], 2, "'l3'"),
        ([DIGITS, "--data", "digits", "--set", "serch.n=3"], 2, "Did you mean 'search'?"),
        ([DIGITS, "--data", "digits", "--weights", "none.pth"], 7, "none.pth does not exist"),
        (["randprune:resnet2", "--data", "digits"], 2, "Unknown model 'randprune:resnet2'"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    run: Any, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    got, out, err = run("prune", *arguments, "-o", str(tmp_path / "out"), "-q")
    assert (got, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out" / "pruned.safetensors").exists()


def searched(out: Path) -> int:
    """How many candidates the records hold so far."""
    try:
        return len(RunRecord.load(out).candidates)
    except rp.StorageError:
        return 0


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_is_answered_with_130_and_says_how_to_go_on(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "randprune", "prune", *SMALL_JOB, "-n", "2000",
               "--weights", str(weights), "-o", str(out)]  # fmt: skip
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 600
        while searched(out) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        printed, told = process.communicate()
    finally:
        process.kill()
    # A shell sees 130 in both cases: CPython ends itself by the signal where the interrupt met it
    # in code compiled from a text (as torch.fx does), although it was caught further out.
    assert process.returncode in (130, -signal.SIGINT), told
    assert printed == ""
    assert told.splitlines()[-1] == (
        "Interrupted. Give the same command again to continue where it stopped."
    )
    assert "Traceback" not in told
