"""The job from scratch, end to end on the digits, and killed in each of its phases."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pruning_jobs import Tiny, Watch, digits
from scratch_jobs import CANDIDATES, TRAINING, job, network

import randprune as rp
from randprune.cli.app import main
from randprune.cost import Budget
from randprune.jobs import PruneResult
from randprune.recipe import ScratchRecipe
from randprune.report import RunRecord, report_of, write_report
from randprune.store import (
    DENSE,
    PRETRAINED,
    RANDOM_CONFIGURATION,
    SEARCHED,
    STANDALONE,
    UNIFORM,
    Candidate,
    SharedWeightRanks,
    Store,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PruneResult:
    """The job without an interruption."""
    return job(tmp_path_factory.mktemp("whole"))


def test_every_network_of_the_comparison_is_trained_and_within_the_budget(
    whole: PruneResult,
) -> None:
    space = rp.trace(network(), torch.zeros(1, 1, 8, 8))
    dense = space.cost("macs").dense
    seeds = {(row.role, row.stage, row.seed) for row in whole.networks}
    trained = (SEARCHED, UNIFORM, RANDOM_CONFIGURATION)
    assert seeds >= {(role, "finetuned", k) for role in trained for k in (0, 1)}
    assert seeds >= {(DENSE, "dense", 0), (DENSE, "dense", 1), (STANDALONE, "finetuned", 0)}
    assert (PRETRAINED, "finetuned", 0) in seeds
    for row in whole.networks:
        assert row.test is not None
        if row.stage == "finetuned":
            assert abs(row.macs / dense - 0.5) <= 0.03 + 1e-9
        else:
            assert row.macs == dense
    assert len({r.widths for r in whole.networks if r.role == RANDOM_CONFIGURATION}) == 2
    assert (whole.configurations > space.widths).any()
    assert whole.accuracy(DENSE) > 0.5
    shares = [row.test.share for row in whole.networks if row.role == SEARCHED and row.test]
    assert whole.accuracy(SEARCHED) == np.mean(shares)
    assert whole.verification.passed


def test_the_winner_is_the_best_with_shared_weights(whole: PruneResult) -> None:
    scores = whole.scores("search_top1")
    assert len(scores) == CANDIDATES
    assert whole.winner.index == int(np.argmax(scores))
    assert whole.selection.widths.tolist() == whole.configurations[whole.winner.index].tolist()


def test_the_network_loads_on_the_original_constructor(whole: PruneResult) -> None:
    assert whole.artifact is not None
    loaded = rp.load(whole.artifact, model=Tiny)
    images = next(digits().search.batches(8))[0]
    with torch.no_grad():
        assert torch.equal(loaded(images), whole.model(images))


def test_the_ledger_counts_what_was_trained(whole: PruneResult) -> None:
    data = digits()
    entries = {entry.key: entry for entry in whole.ledger}
    steps = len(data.fit) // TRAINING["batch_size"] * TRAINING["batch_size"]
    shared = entries["supernet"]
    assert shared.images_forward == TRAINING["epochs"] * steps
    per_image = shared.macs_spent / shared.images_forward / 3
    dense = whole.network(DENSE).macs
    assert abs(per_image / dense - 0.5) <= 0.03
    alone = entries["training/searched/0"]
    row = whole.network(SEARCHED)
    assert alone.macs_spent == 3 * row.macs * alone.images_backward
    ours = shared.macs_spent + alone.macs_spent
    ours += sum(e.macs_spent for e in whole.ledger if e.phase == "search")
    theirs = sum(e.macs_spent for e in whole.ledger if e.phase == "pretrained")
    # Whole epochs of few: within one epoch of the dense network.
    assert abs(theirs - ours) <= 3 * dense * len(data.full_train) * 1.1
    distinct = {tuple(row) for row in whole.configurations.tolist()}
    assert sum(entry.phase == "search" for entry in whole.ledger) == len(distinct)


def test_the_report_reads_its_records(whole: PruneResult, tmp_path: Path) -> None:
    assert whole.folder is not None
    record = RunRecord.load(whole.folder)
    paths = write_report(record, tmp_path)
    page = paths.html.read_text()
    assert "Pruning from scratch" in page
    assert "random configuration" in page
    said = report_of(record).headline.replace("\u00a0", " ")
    assert f"{100 * whole.accuracy(SEARCHED):.1f}" in said
    with Store.open(whole.folder, read_only=True) as store:
        ranks = store.latest().read(SharedWeightRanks)
    assert ranks is not None
    assert ranks.networks == len(ranks.shared) == len(ranks.alone) >= 4
    assert "trained" in whole.summary()
    assert "2 seeds" in whole.summary()


def test_a_finished_job_is_only_read(whole: PruneResult) -> None:
    watch = Watch()
    again = job(whole.folder, watch)
    assert watch.steps == []
    assert again.winner == whole.winner
    assert again.ledger == whole.ledger


def kill(out: Path, phase: str, done: int) -> None:
    script = Path(__file__).with_name("scratch_jobs.py")
    ended = subprocess.run(
        [sys.executable, str(script), str(out), phase, str(done)], capture_output=True, text=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def settled(candidate: Candidate) -> Candidate:
    """Without what differs whenever a candidate is made again."""
    return dataclasses.replace(candidate, seconds={})


def test_killed_in_each_phase_it_goes_on_and_ends_the_same(
    whole: PruneResult, tmp_path: Path
) -> None:
    # 100 steps of progress an epoch: killed in the second of two.
    kill(tmp_path, "supernet", 150)
    with Store.open(tmp_path, read_only=True) as store:
        assert store.latest().candidates() == ()
        assert len(store.latest().epochs("shared weights")) == 1
    kill(tmp_path, "search", 3)
    with Store.open(tmp_path, read_only=True) as store:
        found, shared = store.latest().candidates(), store.latest().ledger()[0]
    assert [c.index for c in found] == [0, 1, 2]
    kill(tmp_path, "training/searched/1", 150)
    with Store.open(tmp_path, read_only=True) as store:
        ledger = store.latest().ledger()
    assert shared in ledger
    watch = Watch()
    result = job(tmp_path, watch)
    assert set(ledger) <= set(result.ledger)
    redone = {phase for phase, _, _ in watch.steps}
    assert not redone & {
        "supernet",
        "search",
        "controls",
        "training/dense/0",
        "training/searched/0",
    }
    again = [done for phase, done, _ in watch.steps if phase == "training/searched/1"]
    assert min(again) > 100
    # Seconds differ whenever a candidate is made again.
    kept = [c for c in result.candidates if c.method == SEARCHED][:3]
    assert kept == list(found)
    assert result.winner == whole.winner
    assert list(map(settled, result.candidates)) == list(map(settled, whole.candidates))
    assert [(r.label, r.seed, r.test) for r in result.networks] == [
        (r.label, r.seed, r.test) for r in whole.networks
    ]
    ours, theirs = result.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert not (tmp_path / "work").exists()


def test_options_sandwich_loss_and_uniform_search() -> None:
    result = job(
        None,
        strategy="uniform",
        candidates=1,
        seeds=1,
        standalone=0,
        factor={"first": 2.0},
        settings={
            "search": {"precision": "float32", "rank_by": "loss"},
            "output": {"latency_seconds": 0.0},
            "supernet": {"pool": 16, "sandwich": True, "distill": True},
            "controls": {"dense": False, "pretrained": False, "random": False},
        },
    )
    assert result.space.widths.tolist() == [24, 16]
    assert {row.role for row in result.networks} == {SEARCHED, UNIFORM}
    assert result.folder is None
    assert "uniform" in result.summary()


def test_what_cannot_be_asked() -> None:
    with pytest.raises(rp.InvalidInputError, match=r"takes no model\.weights"):
        ScratchRecipe.parse({"model": {"spec": "randprune:resnet20", "weights": "a.pt"}})
    with pytest.raises(rp.InvalidInputError, match=r"needs supernet\.sandwich"):
        ScratchRecipe.parse({"supernet": {"distill": True}})
    with pytest.raises(rp.InvalidInputError, match="there is no trained teacher"):
        ScratchRecipe.parse({"training": {"distill_weight": 0.5}})
    with pytest.raises(rp.InvalidInputError, match=r"no \[model\] section"):
        rp.run_scratch_recipe(ScratchRecipe())
    with pytest.raises(rp.InfeasibleBudgetError, match="asked"):
        job(None, budget=Budget("macs", 0.001, 0.0005), min_keep=0.5)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--shared-epochs 1 --epochs 1 --candidates 2 --tolerance 0.03 --no-pretrained --json -q"
    fixed = "--set output.latency_seconds=0 --set supernet.pool=16 --set controls.random=false"
    spec = ["scratch", "pruning_jobs:Tiny", "--data", "digits", "--out", str(tmp_path)]
    assert main([*spec, *flags.split(), *fixed.split()]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == "finished"
    assert Path(document["network"]).is_file()
    assert len(document["widths"]) == 2
    assert main(["report", str(tmp_path), "--json"]) == 0
    assert main(["scratch", "--data", "digits"]) != 0
    assert "randprune scratch randprune:resnet20" in capsys.readouterr().err
