"""The latency cost, with a runtime whose times are known exactly."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from stepwise import Stepwise, layer_ms, small_network
from torch import nn

import randprune as rp
from randprune.errors import InvalidInputError
from randprune.latency import LatencyCost, Setting, latency_cost
from randprune.latency.operators import Call, work_of
from randprune.latency.table import Times, kept_in

SETTING = Setting("stepwise")


def space_of(model: nn.Module) -> rp.Space:
    return rp.trace(model, torch.zeros(1, 3, 8, 8))


def truth(widths: np.ndarray) -> np.ndarray:
    return np.array([layer_ms(3, a) + layer_ms(a, b) + layer_ms(b, 10) for a, b in widths.tolist()])


def built(folder: Path, step: int = 1, runtime: Stepwise | None = None) -> LatencyCost:
    model = small_network()
    engine = runtime or Stepwise()
    return latency_cost(model, space_of(model), SETTING, step=step, folder=folder, runtime=engine)


@pytest.mark.parametrize("step", [1, 8])
def test_predicts_networks_that_it_has_not_seen(tmp_path: Path, step: int) -> None:
    cost = built(tmp_path, step)
    rng = np.random.default_rng(3)
    widths = step * rng.integers(1, np.array([64, 96]) // step + 1, (200, 2))
    assert np.abs(cost(widths) / truth(widths) - 1.0).max() < 0.02
    assert cost.dense == pytest.approx(truth(np.array([[64, 96]]))[0], rel=0.01)
    assert cost.errors.max() < 0.02
    if step == 1:  # neither smooth nor monotone: a channel more can be cheaper
        assert float(cost([64, 95])) > cost.dense


def test_all_forms_of_asking_agree(tmp_path: Path) -> None:
    cost = built(tmp_path)
    rng = np.random.default_rng(0)
    widths = rng.integers(1, [65, 97], (50, 2))
    one_by_one = [float(cost(row)) for row in widths]
    assert cost(widths).tolist() == pytest.approx(one_by_one, rel=1e-12)
    assert cost(widths.astype(np.float64)).tolist() == cost(widths).tolist()
    assert cost(widths.reshape(5, 10, 2)).tolist() == cost(widths).reshape(5, 10).tolist()
    for group in (0, 1):
        levels = np.arange(1, 65)
        profile = cost.profile(widths, group, levels)
        for row, found in zip(widths, profile, strict=True):
            every = np.repeat(row[None], len(levels), axis=0)
            every[:, group] = levels
            assert np.ptp(cost(every) - found) < 1e-9
    steps = np.where(widths > 1, -1, 0)
    moved = cost.moved(widths, steps)
    for group in (0, 1):
        other = widths.copy()
        other[:, group] += steps[:, group]
        assert moved[:, group].tolist() == pytest.approx(cost(other).tolist(), rel=1e-9)
    layers = cost.of_layers([40, 50])
    assert sum(layers.values()) == pytest.approx(float(cost([40, 50])))
    assert list(layers) == ["0", "3", "8", "everything else"]


def test_kept_on_disk_and_measured_once(tmp_path: Path) -> None:
    first, again = Stepwise(), Stepwise()
    cost = built(tmp_path, 8, first)
    assert first.prepared == 12
    assert first.asked
    same = built(tmp_path, 8, again)
    assert (again.prepared, again.asked) == (0, [])
    rng = np.random.default_rng(0)
    widths = rng.integers(1, [65, 97], (50, 2))
    assert same(widths).tolist() == cost(widths).tolist()
    restored = LatencyCost.from_json(json.loads(json.dumps(cost.to_json())))
    assert restored(widths).tolist() == cost(widths).tolist()
    assert restored.errors.tolist() == cost.errors.tolist()


def test_a_damaged_or_foreign_file_counts_as_missing(tmp_path: Path) -> None:
    built(tmp_path, 8)
    files = list(tmp_path.rglob("*.json"))
    files[0].write_text("{ not json")
    files[1].write_text('{"format": 99}')
    again = Stepwise()
    assert built(tmp_path, 8, again).errors.max() < 0.02
    assert again.prepared or again.asked
    assert all(json.loads(file.read_text())["format"] == 1 for file in files)


def test_two_writers_of_one_folder_leave_sound_files(tmp_path: Path) -> None:
    model = small_network()
    operator = work_of(model, space_of(model), 1, ()).layers[0].operator
    calls = [Call(operator, 3, outputs) for outputs in range(1, 65)]

    def write(part: list[Call]) -> None:
        for call in part:
            Times(tmp_path, lambda c: np.array([layer_ms(x.inputs, x.outputs) for x in c])).of(
                [call]
            )

    threads = [threading.Thread(target=write, args=(calls[i::2],)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asked: list[Call] = []

    def measure(missing: object) -> np.ndarray:
        assert isinstance(missing, list)
        asked.extend(missing)
        return np.array([layer_ms(x.inputs, x.outputs) for x in missing])

    found = Times(tmp_path, measure).of(calls)
    assert found.tolist() == [layer_ms(3, call.outputs) for call in calls]
    assert len(asked) < len(calls)
    assert not list(tmp_path.rglob("*.part"))


def test_the_folder_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANDPRUNE_LATENCY", str(tmp_path / "mine"))
    assert kept_in(None, "x-1", 2).is_relative_to(tmp_path / "mine")
    assert kept_in(tmp_path / "given", "x-1", 2).is_relative_to(tmp_path / "given")
    monkeypatch.delenv("RANDPRUNE_LATENCY")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kept_in(None, "x-1", 2).is_relative_to(tmp_path / "cache" / "randprune" / "latency")
    assert kept_in(None, "x-1", 2) != kept_in(None, "x-1", 1)


def test_a_network_that_the_runtime_cannot_run_is_measured_in_torch(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    broken = Stepwise(fails="it has no such operator")
    cost = latency_cost(model, space_of(model), SETTING, step=8, folder=tmp_path, runtime=broken)
    assert cost.setting.runtime == "torch"
    assert "cannot run in stepwise" in cost.notes[0]
    assert "it has no such operator" in cost.notes[0]


def test_a_machine_that_becomes_slower_changes_nothing_but_is_told(tmp_path: Path) -> None:
    cost = built(tmp_path, 8, Stepwise(drift=1.005))
    assert "the dense network took 22% more than its least latency" in cost.notes[0]
    quiet = built(tmp_path / "quiet", 8)
    assert quiet.notes == ()
    widths = np.array([[64, 96], [32, 48], [16, 96]])
    assert cost(widths).tolist() == pytest.approx(quiet(widths).tolist(), rel=0.06)


def test_a_runtime_that_is_not_there_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_network()
    with pytest.raises(InvalidInputError, match=r"No runtime is called 'onxruntime'"):
        latency_cost(model, space_of(model), Setting("onxruntime"), folder=tmp_path)
    monkeypatch.setattr("randprune.export.find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=r"pip install 'randprune\[latency\]'"):
        latency_cost(model, space_of(model), Setting("openvino"), folder=tmp_path)
    with pytest.raises(InvalidInputError, match="'threads' of a latency must be an integer"):
        latency_cost(model, space_of(model), Setting("torch", threads=0), folder=tmp_path)
