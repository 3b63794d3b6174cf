"""Trackers of accelerate are told what a job's progress is told, and its result."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import randprune as rp
from randprune.errors import InvalidInputError
from randprune.integrations.trackers import Tracked, tracking
from randprune.jobs import Silent

SETTINGS: dict[str, Any] = {
    "output": {"latency_seconds": 0.0},
    "budget": {"tolerance": 0.1},
    "finalists": {"count": 1},
}


class Recorder:
    """A tracker that keeps what it is told, or fails."""

    name = "recorder"

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.told: dict[str, tuple[float, int]] = {}
        self.ended = False

    def log(self, values: dict[str, float], step: int) -> None:
        if self.fails:
            raise OSError("no server")
        self.told.update({name: (value, step) for name, value in values.items()})

    def finish(self) -> None:
        self.ended = True


def pruned(progress: Any) -> rp.PruneResult:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(288, 3),
    ).eval()  # fmt: skip
    images = torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return rp.prune(
        network, (images, torch.arange(60) % 3), 0.5, candidates=2, strategy="random",
        finetune={"epochs": 1, "batch_size": 16}, settings=SETTINGS, progress=progress,
    )  # fmt: skip


def test_a_tracker_is_told_the_metrics_and_the_result() -> None:
    recorder = Recorder()
    tracked = Tracked([recorder], Silent())
    result = pruned(tracked)
    tracked.log_result(result)
    tracked.close()
    assert recorder.told["test/searched/finetuned"] == (result.accuracy("searched"), 0)
    assert recorder.told["test_macs/dense/dense"] == (result.network("dense").macs, 0)
    assert recorder.told["finetune/searched/loss"][1] == 100  # a hundredth of an epoch a step
    assert recorder.ended


def test_a_tracker_that_fails_is_left_out() -> None:
    good, bad = Recorder(), Recorder(fails=True)
    tracked = Tracked([bad, good], Silent())
    with pytest.warns(RuntimeWarning, match="recorder failed and is told no more: no server"):
        tracked.advance("search", 1, {"loss": 2.0})
    tracked.advance("search", 2, {"loss": 1.0})
    assert good.told == {"search/loss": (1.0, 2)}


def test_trackers_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(InvalidInputError, match=r"No tracker is called 'x'.*mlflow, .*tensorboard"),
        tracking(["x"], tmp_path),
    ):
        pass
    accelerate = importlib.import_module("accelerate.tracking")
    monkeypatch.setattr(accelerate, "get_available_trackers", list)
    with (
        pytest.raises(InvalidInputError, match="not installed: pip install mlflow"),
        tracking(["mlflow"], tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        requires_logging_directory = False

        def __init__(self, run_name: str) -> None:
            raise ConnectionError(f"no server for {run_name}")

    accelerate = importlib.import_module("accelerate.tracking")
    monkeypatch.setitem(accelerate.LOGGER_TYPE_TO_CLASS, "mlflow", Broken)
    monkeypatch.setattr(accelerate, "get_available_trackers", lambda: ["mlflow"])
    with (
        pytest.raises(InvalidInputError, match="cannot start: ConnectionError: no server for half"),
        tracking(["mlflow"], tmp_path, run_name="half"),
    ):
        pass


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_what_was_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: make integrations")
    with tracking(["tensorboard"], tmp_path, run_name="half") as tracked:
        tracked.advance("search", 3, {"best_top1": 0.5})
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(tmp_path / "half"))
    read.Reload()
    (point,) = read.Scalars("search/best_top1")
    assert (point.step, point.value) == (3, 0.5)


@pytest.mark.filterwarnings("ignore")
def test_the_command_tracks_into_its_folder(run: Any, tmp_path: Path) -> None:
    safetensors = importlib.import_module("safetensors.torch")
    digits = importlib.import_module("randprune.zoo.models").build_model("randprune:digits_cnn")
    safetensors.save_file(digits.state_dict(), tmp_path / "weights.safetensors")
    job = (
        "prune", "randprune:digits_cnn", "--data", "digits", "--weights",
        str(tmp_path / "weights.safetensors"), "-n", "2", "--finalists", "1", "--recovery", "bn",
        "--set", "finalists.recovery=", "--set", "output.latency_seconds=0", "--quiet", "-o",
        str(tmp_path / "out"),
    )  # fmt: skip
    code, _, err = run(*job, "--track", "no_such")
    assert code == 2
    assert "No tracker is called 'no_such'" in err
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: make integrations")
    code, out, err = run(*job, "--track", "tensorboard")
    assert code == 0, err
    assert "report.html" in out
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(tmp_path / "out" / "track" / "out"))
    read.Reload()
    assert {"test/dense/dense", "test/searched/repaired"} <= set(read.Tags()["scalars"])
