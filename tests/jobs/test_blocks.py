"""Candidates made side by side: the same as one after the other, whoever makes them and dies."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from randprune.errors import InvalidInputError
from randprune.executors import Failure
from randprune.jobs import PruneResult, prune, run_recipe
from randprune.jobs.blocks import Block, Judged, SideBySide
from randprune.recipe import PruneRecipe
from randprune.store import RANDOM_SEARCH, SEARCHED, Candidate
from randprune.zoo import load_data

CANDIDATES = 12
DOCUMENT: dict[str, Any] = {
    "model": {"spec": "randprune:digits_cnn"},
    "data": {"spec": "digits", "calibration": 100, "search": 200},
    "search": {"candidates": CANDIDATES, "precision": "float32"},
    "finalists": {"count": 2},
    "controls": {"random_search": True},
}


def recipe(weights: Path, folder: Path, **output: Any) -> PruneRecipe:
    model = {**DOCUMENT["model"], "weights": str(weights)}
    output = {"folder": str(folder), "latency_seconds": 0.0, **output}
    return PruneRecipe.parse({**DOCUMENT, "model": model, "output": output})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from randprune.training import TrainRecipe, train
    from randprune.zoo import build_model

    torch.manual_seed(0)
    data = load_data("digits", calibration=100, search=200)
    how = TrainRecipe(epochs=1, lr=0.1, batch_size=64, precision="float32")
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    trained = train(build_model("randprune:digits_cnn"), data.full_train, how).model
    torch.save(trained.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def alone(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> PruneResult:
    """All candidates made by this process, which has one thread, too."""
    found = run_recipe(recipe(weights, tmp_path_factory.mktemp("alone")))
    assert isinstance(found, PruneResult)
    return found


def outcome(result: PruneResult) -> list[Candidate]:
    return [dataclasses.replace(c, seconds={}) for c in result.candidates]


def spent(result: PruneResult) -> dict[str, float]:
    return {e.key: e.macs_spent for e in result.ledger if e.phase in ("search", "controls")}


def test_two_processes_find_what_one_finds(
    weights: Path, alone: PruneResult, tmp_path: Path
) -> None:
    found = run_recipe(recipe(weights, tmp_path, workers=2))
    assert isinstance(found, PruneResult)
    assert outcome(found) == outcome(alone)
    assert spent(found) == spent(alone)
    assert found.selection.widths.tolist() == alone.selection.widths.tolist()
    methods = [c.method for c in found.candidates]
    assert methods.count(SEARCHED) == methods.count(RANDOM_SEARCH) == CANDIDATES
    assert [n.test for n in found.networks] == [n.test for n in alone.networks]
    again = run_recipe(recipe(weights, tmp_path, workers=2))
    assert isinstance(again, PruneResult)
    assert outcome(again) == outcome(alone)


def test_a_job_that_is_killed_goes_on(weights: Path, alone: PruneResult, tmp_path: Path) -> None:
    """Its processes end with it; the same command makes what is missing."""
    file = tmp_path / "recipe.toml"
    recipe(weights, tmp_path / "out", workers=2).save(file)
    command = [sys.executable, "-m", "randprune", "prune", "--recipe", str(file), "--quiet"]
    command += ["--out", str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment) as process:
        while process.poll() is None and not begun(tmp_path / "out"):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    subprocess.run(command, env=environment, check=True)
    found = run_recipe(PruneRecipe.load(file), out=tmp_path / "out")
    assert isinstance(found, PruneResult)
    assert outcome(found) == outcome(alone)


def begun(folder: Path) -> bool:
    from randprune.report.states import states_of

    try:
        return any(stage.done > 2 for state in states_of(folder) for stage in state.stages)
    except Exception:
        return False


class Scripted:
    """An executor whose blocks fail where told."""

    def __init__(self, failing: Sequence[int]) -> None:
        self.failing = failing
        self.sizes: list[int] = []

    def run(
        self, units: Sequence[Block], advance: Any, *, total: int | None = None
    ) -> Iterator[tuple[Block, Judged | Failure]]:
        for number, block in enumerate(units):
            self.sizes.append(len(block.rows))
            if number in self.failing:
                yield block, Failure("DataError: planted")
            else:
                found = tuple(Candidate(i, w, block.method) for i, w in block.rows)
                yield block, Judged(found, ())

    def close(self) -> None:
        pass


def test_a_block_that_nobody_can_do_is_a_failed_row_each() -> None:
    executor = Scripted(failing=[1])
    rows = [(index, (index, 1)) for index in range(100)]
    found = {c.index: c.status for c, _ in SideBySide(executor, 2).judged(SEARCHED, "search", rows)}
    assert len(found) == 100
    assert max(executor.sizes) <= 8
    failed = [index for index, status in found.items() if status == "failed"]
    assert failed == list(range(executor.sizes[0], executor.sizes[0] + executor.sizes[1]))


def test_a_network_without_a_name_stays_here(tmp_path: Path) -> None:
    data = load_data("digits", calibration=50, search=50)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10)
    )
    with pytest.raises(InvalidInputError, match="by their names"):
        prune(network, data, out=tmp_path, candidates=2, finetune=None,
              settings={"output": {"workers": 2}})  # fmt: skip


def test_weights_of_chance_stay_here(tmp_path: Path) -> None:
    """Another process would make another network of the same name."""
    output = {"folder": str(tmp_path), "latency_seconds": 0.0, "workers": 2}
    with pytest.raises(InvalidInputError, match="its weights come of chance"):
        run_recipe(PruneRecipe.parse({**DOCUMENT, "output": output}))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"search": {"race": True}}, "one after the other"),
        ({"budget": {"metric": "latency"}}, "measured by one process"),
    ],
)
def test_what_needs_one_process(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        PruneRecipe.parse({**DOCUMENT, **keys, "output": {"workers": 2}})
