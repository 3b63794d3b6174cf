"""`randprune scratch` from the command line: its plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from randprune.cli import main

DIGITS = ("scratch", "randprune:digits_cnn", "--data", "digits", "--dry-run")


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*DIGITS, "--set", "training.seeds=3"]) == 0
    printed = capsys.readouterr().out
    for words in ("1.63", "3.66", "50.0", "20 epochs", "12 from random weights", "pre-trained"):
        assert words in printed.replace("\u00a0", " ")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_counts_what_the_recipe_adds(capsys: pytest.CaptureFixture[str]) -> None:
    def plan(*settings: str) -> dict[str, float]:
        arguments = [word for setting in settings for word in ("--set", setting)]
        assert main([*DIGITS, "--json", *arguments]) == 0
        macs: dict[str, float] = json.loads(capsys.readouterr().out)["phase_macs"]
        return macs

    plain = plan("controls.pretrained=false")
    assert set(plain) == {"shared weights", "search", "trainings"}
    # Half a network's epochs on 945 images: what sub-networks cost, never the wide one.
    assert plain["shared weights"] == pytest.approx(3 * 20 * 945 * 0.5 * 1_632_000, rel=0.01)
    more = plan("controls.pretrained=false", "supernet.sandwich=true", "training.standalone=2")
    assert more["shared weights"] > 4 * plain["shared weights"]
    assert more["trainings"] > 1.3 * plain["trainings"]
    assert more["search"] == plain["search"]
    assert plan()["pretrained"] > plain["shared weights"]


def test_a_plan_refuses_a_budget_out_of_reach_in_shares_of_the_original(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*DIGITS, "--budget", "0.02", "--set", "budget.tolerance=0.001"]) == 4
    error = capsys.readouterr().err
    assert "MACs 0.02±0.001 was asked for, but 0.03-2.25 can be reached" in error
    assert "Lower min_keep" in error
