"""Folders that were used before, and a clock that goes backwards."""

from __future__ import annotations

import datetime as dates
from pathlib import Path
from typing import Any

import pytest
import torch
from attacked import QUICK, images, network
from torch import nn

import randprune as rp
from randprune.report import write_report
from randprune.store import Store, schema


def job(folder: Path, **changes: Any) -> rp.PruneResult:
    parameters = {"model": network(), "candidates": 2, "finetune": 1, "settings": QUICK, **changes}
    return rp.prune(parameters.pop("model"), images(), out=folder, **parameters)


def other_weights() -> nn.Module:
    changed = network()
    with torch.no_grad():
        changed[0].weight[0, 0, 0, 0] += 1e-6
    return changed


def rows(folder: Path, run: int) -> list[Any]:
    """Everything that the records hold of a run."""
    with Store.open(folder, read_only=True) as store:
        found = store.get(run)
        return [found.info, found.candidates(), found.networks(), found.epochs(), found.ledger(),
                found.milestones()]  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    own = [file for file in folder.iterdir() if file.suffix in (".toml", ".safetensors")]
    return {file.name: file.read_bytes() for file in own}


def test_what_decides_the_result_starts_a_run_of_its_own_and_the_old_ones_stay(
    tmp_path: Path,
) -> None:
    first = job(tmp_path)
    changes: list[dict[str, Any]] = [
        {"budget": 0.6},
        {"candidates": 3},
        {"finetune": 2},
        {"model": other_weights()},
        {"seed": 1},
    ]
    kept, before = [rows(tmp_path, 1)], files(tmp_path)
    for number, change in enumerate(changes, 2):
        job(tmp_path, **change)
        assert [rows(tmp_path, run) for run in range(1, number)] == kept
        now = files(tmp_path)
        assert {name: now[name] for name in before} == before
        assert len(now) == len(before) + 2
        kept, before = [*kept, rows(tmp_path, number)], now
    again = job(tmp_path)
    assert rows(tmp_path, 1) == kept[0]
    ours, theirs = again.model.state_dict(), first.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with Store.open(tmp_path, read_only=True) as store:
        assert len(store.runs()) == 1 + len(changes)


class Interrupt:
    """Ends a job in its search, as Ctrl-C does."""

    def start(self, phase: str, total: int, done: int, text: str) -> None:
        return

    def advance(self, phase: str, done: int, metrics: Any) -> None:
        if phase == "search":
            raise KeyboardInterrupt

    def finish(self, phase: str) -> None:
        return


def test_a_clock_that_was_set_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SetBack(dates.datetime):
        @classmethod
        def now(cls, zone: dates.tzinfo | None = None) -> dates.datetime:  # type: ignore[override]
            return super().now(zone) - dates.timedelta(days=400)

    expected = job(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path / "out", progress=Interrupt())
    monkeypatch.setattr(schema, "datetime", SetBack)
    found = job(tmp_path / "out")
    assert found.winner == expected.winner
    assert (tmp_path / "out/pruned.safetensors").read_bytes() == (
        tmp_path / "whole/pruned.safetensors"
    ).read_bytes()
    with Store.open(tmp_path / "out", read_only=True) as store:
        run = store.latest()
        assert run.finished
        assert run.info.finished < run.info.started
    page = write_report(tmp_path / "out", tmp_path / "out").html.read_text()
    assert "This run failed" not in page
