"""Who made a result, and where, is nobody's business: no file of an output folder tells it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from attacked import network

from randprune.bench import BenchRecipe, run_bench
from randprune.bench.methods import Task, methods
from randprune.cli.app import main
from randprune.errors import DataError
from randprune.provenance import portable
from randprune.recipe import PruneRecipe
from randprune.report import report_of, write_report
from randprune.space import Selection

WHO = "alice-smith"


def small() -> torch.nn.Module:
    """What recipes of this file name as their network."""
    return network()


@methods.register("tells_where")
class TellsWhere:
    """Fails, and says on which file."""

    uses_criterion = False
    words = "Fails on a file."

    def propose(self, task: Task) -> Selection:
        raise DataError(f"{Path.cwd() / 'a file.npy'} and '{Path.cwd().parent / 'b.npy'}' are bad")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose name tells who works there; the working folder lies in it."""
    work = tmp_path / WHO / "my project"
    (work / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in ("train-0", "test"):
        images = rng.integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
        np.savez(work / "images" / f"{part}.npz", images=images, labels=np.arange(80) % 4)
    torch.save(small().state_dict(), work / "weights.pt")
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return work


def assert_nothing_tells(folder: Path) -> None:
    """Looks at every byte of every file, of compressed and free pages too."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} >= {".sqlite", ".toml", ".html"}
    for file in files:
        content = file.read_bytes()
        for name in (WHO.encode(), str(Path.home()).encode() + b"/"):
            assert name not in content, f"{file.name}: ...{content[: content.find(name)][-200:]!r}"


def prune(home: Path, *more: str) -> int:
    return main(
        ["prune", "test_private_names:small", "--data", f"npz:{home / 'images'}", "--weights",
         str(home / "weights.pt"), "-n", "2", "--finalists", "1", "--tolerance", "0.2",
         "--set", "finalists.recovery=", "--set", "output.latency_seconds=0", *more]
    )  # fmt: skip


def test_a_pruning_job_below_the_working_folder(home: Path) -> None:
    assert prune(home, "-o", str(home / "out")) == 0
    assert_nothing_tells(home / "out")
    recipe = PruneRecipe.load(home / "out" / "recipe.toml")
    assert recipe.model is not None
    assert recipe.data is not None
    assert (recipe.model.weights, recipe.data.spec) == ("weights.pt", "npz:images")
    assert recipe.output.folder == "out"
    # From the folder where the command was given, its recipe is the same job again: it is read.
    text = (home / "out" / "recipe.toml").read_text()
    command = "randprune prune --recipe out/recipe.toml"
    assert f"#   {command}\n" in text
    assert "--set" not in text
    assert main([*command.split()[1:], "--trust-plugins"]) == 0
    with sqlite3.connect(home / "out" / "records.sqlite") as records:
        assert records.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_what_lies_outside_keeps_its_last_part_and_is_asked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    assert prune(home, "-o", str(home / "out")) == 0
    assert_nothing_tells(home / "out")
    text = (home / "out" / "recipe.toml").read_text()
    assert "#   randprune prune --recipe recipe.toml\n" in text
    assert "#   --set model.weights=.../weights.pt\n" in text
    assert "#   --set data.spec=npz:.../images\n" in text
    assert "output.folder" not in text
    assert PruneRecipe.load(home / "out" / "recipe.toml").output.folder == ""


def test_a_benchmark_and_the_errors_of_its_rows(home: Path) -> None:
    recipe = BenchRecipe.parse(
        {
            "plugins": ["test_private_names"],
            "model": {"spec": "test_private_names:small", "weights": str(home / "weights.pt")},
            "data": {"spec": f"npz:{home / 'images'}"},
            "budget": {"tolerance": 0.2},
            "methods": {
                "random_search": {"options": {"candidates": 2}},
                "uniform": {},
                "random_channels": {},
                "tells_where": {},
            },
            "design": {"draws": 1, "epochs": [0]},
            "output": {"folder": str(home / "out"), "workers": 0},
        }
    )
    run = run_bench(recipe)
    (failed,) = run.failures
    assert failed.error == "DataError: a file.npy and '.../b.npy' are bad"
    write_report(report_of(run), home / "out")
    assert_nothing_tells(home / "out")
    read = BenchRecipe.load(home / "out" / "bench.toml")
    assert (read.network.weights, read.images.spec) == ("weights.pt", "npz:images")
    assert read.output.folder == "out"


def test_a_link_to_the_working_folder_and_names_with_spaces(home: Path) -> None:
    link = home.parent / "link"
    os.symlink(home, link)
    assert portable(str(link / "images")) == "images"
    assert portable(f"cannot read '{home.parent}/a b.npz'") == "cannot read '.../a b.npz'"
    assert portable(f"cannot read {home}/a b.npz") == "cannot read a b.npz"
