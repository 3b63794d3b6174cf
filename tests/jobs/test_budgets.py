"""Several budgets in one job: what is known of the network is made once, each result is its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pruning_jobs import CANDIDATES, SETTINGS, Watch, digits, job, trained
from safetensors.torch import save_file
from torch import nn

import randprune as rp
from randprune.cli.app import main
from randprune.cli.flags import Asked
from randprune.cli.recipes import job_recipe
from randprune.jobs import PruneCurve, opening, session as session_module
from randprune.recipe import PruneRecipe
from randprune.store import Store

BUDGETS = [0.7, 0.5]


def curve(out: Path | None, progress: Watch | None = None, **changes: Any) -> PruneCurve:
    found: Any = job(out, progress, budget=BUDGETS, **changes)
    assert isinstance(found, PruneCurve)
    return found


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> PruneCurve:
    return curve(tmp_path_factory.mktemp("curve"))


def test_what_is_known_of_the_network_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, int] = {}

    def count(module: Any, name: str) -> None:
        original = getattr(module, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return original(*arguments, **named)

        monkeypatch.setattr(module, name, counted)

    count(opening, "trace")
    for name in ("collect_moments", "measured_tables"):
        count(session_module, name)
    found = curve(tmp_path, finetune=None)
    assert calls == {"trace": 1, "collect_moments": 1, "measured_tables": 1}
    keys = [[entry.key for entry in result.ledger] for result in found]
    for shared in ("moments", "tables", "scores/reconstruction", "dense/search"):
        assert [shared in ours for ours in keys] == [True, False]


def test_each_result_is_that_of_its_budget_alone(done: PruneCurve, tmp_path: Path) -> None:
    for result, ratio in zip(done, BUDGETS, strict=True):
        alone = job(tmp_path / str(ratio), budget=ratio)
        assert same(result.model, alone.model)
        assert result.recipe == alone.recipe
        assert [c.widths for c in result.candidates] == [c.widths for c in alone.candidates]
        assert [r.test for r in result.networks] == [r.test for r in alone.networks]
        # A finished job of that budget alone is read in the folder of all.
        assert result.folder is not None
        read = Watch()
        assert same(job(result.folder, read, budget=ratio).model, alone.model)
        assert [phase for phase, *_ in read.phases] == ["trace"]


def test_the_curve_sets_uniform_widths_beside_the_search(done: PruneCurve) -> None:
    assert [point.ratio for point in done.curve] == [0.7, 0.5]
    for point, result in zip(done.curve, done, strict=True):
        assert point.macs == pytest.approx(point.ratio, abs=0.031)
        assert (point.accuracy, point.stage) == (result.accuracy(), "finetuned")
        # Controls are not fine-tuned here: both are compared without training.
        assert point.common == "repaired"
        assert point.beside == result.accuracy("searched", "repaired")
        assert point.uniform == result.accuracy("uniform", "repaired")
        assert result.artifact is not None
        assert point.file == result.artifact.name
        loaded = rp.load(result.artifact, model=trained())
        assert same(loaded, result.model)
    assert "70.0%" in done.summary()
    assert done.summary() in repr(done)
    assert done._repr_html_().count("<tr>") == 2 + len(done)


def test_a_finished_job_is_only_read(done: PruneCurve) -> None:
    watch = Watch()
    folder = done[0].folder
    assert folder is not None
    again = curve(folder, watch)
    assert [phase for phase, *_ in watch.phases] == ["trace"]
    assert again.curve == done.curve
    files = {path.name for path in folder.glob("[pr]*[ls]")}
    assert files == {"pruned-2.safetensors", "pruned.safetensors", "recipe.toml"}


@pytest.mark.parametrize(("phase", "steps"), [("0.5/search", 3), ("0.7/test", 2)])
def test_killed_anywhere_it_goes_on(
    done: PruneCurve, tmp_path: Path, phase: str, steps: int
) -> None:
    program = (
        "import sys; from test_budgets import *; "
        f"curve(Path(sys.argv[1]), Watch({phase!r}, {steps}))"
    )
    here = Path(__file__).parent
    killed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=here, capture_output=True, check=False
    )
    assert killed.returncode == -9, killed.stderr
    watch = Watch()
    found = curve(tmp_path, watch)
    before = {name: already for name, _, already in watch.phases}
    assert before["0.7/search"] == CANDIDATES
    assert before[phase] == steps
    assert [p.accuracy for p in found.curve] == [p.accuracy for p in done.curve]
    assert all(same(ours.model, theirs.model) for ours, theirs in zip(found, done, strict=True))
    assert not (tmp_path / "work").exists()


def test_the_test_set_is_opened_after_every_search(tmp_path: Path) -> None:
    watch = Watch()
    data = digits()
    found = curve(tmp_path, watch, data=data, finetune=None)
    names = [phase for phase, *_ in watch.phases]
    assert names.index("0.5/finalists") < names.index("0.7/test")
    assert data.test_opened == 1
    with Store.open(tmp_path, read_only=True) as store:
        uses = [run.milestones()["test_set_use"]["before_final"] for run in store.runs()]
    assert uses == [0, 0]
    assert len(found) == 2


def test_a_budget_out_of_reach_is_said_before_anything_is_done(tmp_path: Path) -> None:
    watch = Watch()
    with pytest.raises(rp.InfeasibleBudgetError, match=r"No feasible widths"):
        job(tmp_path, watch, budget=[0.7, 0.001])
    assert [phase for phase, *_ in watch.phases] == ["trace"]
    with Store.open(tmp_path) as store:
        assert store.runs() == ()


def test_without_a_folder_nothing_is_kept() -> None:
    one: Any = job(None, finetune=None, candidates=2, budget=[0.7])
    assert isinstance(one, PruneCurve)  # what is asked for as several comes as several
    assert one.results[0].budget.ratio == 0.7
    found = curve(None, finetune=None, candidates=2)
    assert [result.artifact for result in found] == [None, None]
    assert [point.file for point in found.curve] == ["", ""]


def test_the_command_prints_the_curve_and_the_report_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = tmp_path / "weights.safetensors", tmp_path / "out"
    save_file(dict(trained().state_dict()), weights)
    command = [
        "prune", "pruning_jobs:Tiny", "--weights", str(weights), "--data", "digits", "-b",
        "0.7,0.5", "-n", "2", "--finalists", "1", "--tolerance", "0.03", "--out", str(out),
        "--set", "output.latency_seconds=0", "--quiet",
    ]  # fmt: skip
    assert main(command) == 0
    printed = capsys.readouterr().out.replace("\u00a0", " ")
    for words in ("2 budgets:", "Uniform, repaired, no training", "pruned-2.safetensors"):
        assert words in printed
    page = (out / "report.html").read_text()
    assert "Accuracy against MACs" in page
    assert (out / "figures" / "accuracy-budgets.png").exists()
    assert (out / "tables" / "budgets.csv").read_text().count("\n") == 3
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [point["ratio"] for point in found["curve"]] == [0.7, 0.5]
    assert [Path(one["network"]).exists() for one in found["results"]] == [True, True]
    # Each budget has a page of its own.
    assert main(["report", str(out), "--budget", "0.7"]) == 0
    assert "70.0 %" in (out / "budget-0.7" / "report.html").read_text().replace("\u00a0", " ")
    assert main(["report", str(out), "--budget", "0.6"]) != 0
    assert "Its budgets: 0.7, 0.5." in capsys.readouterr().err
    # One budget on the command line takes the place of several in the file.
    given = {"budget.ratio": 0.6, "budget.ratios": None, "output.folder": "x"}
    asked = Asked(given, recipe=out / "recipe.toml", trust_plugins=True)
    assert [b.ratio for b in job_recipe(PruneRecipe, asked).budget.budgets()] == [0.6]
    assert main(["prune", *command[1:8], "-b", "0.7;0.5"]) == 2
    assert "takes a number, or several with commas" in capsys.readouterr().err


def test_what_does_not_go_together_is_refused() -> None:
    for budget, message in (
        ([0.7, 0.7], "ratios must be given once each. Got 0.7, 0.7"),
        ([0.7, rp.Budget("params", 0.5)], "several of the same cost and tolerance"),
        (["half"], "must be the share of the MACs that remains"),
        ([], "one budget or several"),
    ):
        with pytest.raises(rp.InvalidInputError, match=message):
            rp.prune(trained(), digits(), budget=budget)


def test_a_recipe_says_several_budgets(tmp_path: Path) -> None:
    recipe = PruneRecipe.from_toml("[budget]\nratios = [0.7, 0.5]\ntolerance = 0.03")
    assert PruneRecipe.from_toml(recipe.to_toml()) == recipe
    assert [b.ratio for b in recipe.budget.budgets()] == [0.7, 0.5]
    alone = PruneRecipe.parse({"budget": {"ratio": 0.7, "tolerance": 0.03}})
    assert recipe.for_each_budget()[0] == alone
    # A recipe of one budget is what it was.
    assert "ratios" not in json.dumps(PruneRecipe().document())
    assert PruneRecipe().for_each_budget() == ()
    assert SETTINGS["budget"] == {"tolerance": 0.03}
