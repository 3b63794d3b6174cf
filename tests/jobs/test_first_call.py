"""The first call in Python: networks by name, plug-ins, notes, and results that fit on a page."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pruning_jobs import SETTINGS, digits, job, trained
from safetensors.torch import save_file
from torch import nn

import randprune as rp
from randprune.jobs.opening import traced
from randprune.recovery import recoveries

SMALL: dict[str, Any] = {
    "candidates": 2,
    "settings": {**SETTINGS, "finalists": {"count": 1, "recovery": "bn"}},
}
A_PAGE = 60


def test_a_network_by_its_name_is_the_same_job_as_the_network(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(dict(trained().state_dict()), weights)
    out = tmp_path / "out"
    named = rp.prune("pruning_jobs:Tiny", digits(), weights=weights, out=out, **SMALL)
    given = job(tmp_path / "given", finetune=None, **SMALL)
    ours, theirs = named.model.state_dict(), given.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert named.artifact is not None
    again = rp.load(named.artifact, model="pruning_jobs:Tiny").state_dict()
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    with pytest.raises(rp.InvalidInputError, match="'weights' parameter of prune is for a network"):
        rp.prune(trained(), digits(), weights=weights)
    with pytest.raises(rp.InvalidInputError, match=r"resnet18\d*'?.*torchvision"):
        rp.prune("torchvision:resnet18x", digits())


def test_a_plug_in_registers_before_names_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_repair.py").write_text(
        "from randprune.recovery import MeasuredNorm, recoveries\n"
        "recoveries.register('my_bn')(MeasuredNorm)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = {**SETTINGS, "finalists": {"count": 1, "recovery": "my_bn"}}
    arguments: dict[str, Any] = {"candidates": 2, "recovery": "bn", "settings": settings}
    try:
        with pytest.raises(rp.InvalidInputError, match="No recovery is called 'my_bn'"):
            rp.prune(trained(), digits(), **arguments)
        result = rp.prune(trained(), digits(), plugins=["my_repair"], **arguments)
        assert result.network("searched").recovery == "my_bn"
        with pytest.raises(rp.InvalidInputError, match="the module 'no_such' cannot be imported"):
            rp.prune(trained(), digits(), plugins=["no_such"])
    finally:
        recoveries.unregister("my_bn")
        sys.modules.pop("my_repair", None)


def test_notes_carry_the_warnings_of_the_command() -> None:
    torch.manual_seed(0)
    untrained = type(trained())()
    result = rp.prune(untrained, digits(), **SMALL)
    (said,) = [note for note in result.notes if "commonest class" in note]
    assert said.startswith("Warning: the dense network has")
    assert said in result.summary()
    better = [
        row for row in result.networks
        if row.role == "uniform" and row.stage == "repaired" and row.test is not None
        and row.test.share > result.accuracy("searched")
    ]  # fmt: skip
    assert any("the search did not pay here" in note for note in result.notes) == bool(better)
    assert job(None, finetune=None, **SMALL).notes == ()


class Long(nn.Module):
    """200 groups."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(3 if i == 0 else 4, 4, 1) for i in range(200)]
        self.body = nn.Sequential(*layers, nn.Conv2d(4, 10, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).mean((2, 3))


def test_spaces_and_results_fit_on_a_page() -> None:
    space = rp.trace(Long(), torch.zeros(1, 3, 2, 2))
    assert len(space) == 200
    shown = repr(space)
    assert shown == str(space)
    assert shown.count("\n") < A_PAGE
    assert "Space of Long: 200 channel groups" in shown
    assert "... and 176 more, see .groups" in shown
    result = job(None, finetune=None, **SMALL)
    assert result.summary() in repr(result)
    assert str(result) == repr(result)
    many = replace(result, notes=tuple(f"Group {i} keeps its width." for i in range(200)))
    assert repr(many).count("\n") < A_PAGE
    assert "... and 188 more notes, see .notes" in repr(many)


class OneSize(nn.Module):
    """Takes images of one size, like a vision transformer."""

    image_size = 224

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 16, 16)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch._assert(x.shape[2] == self.image_size, "Wrong image height! Expected 224")
        return self.head(self.stem(x).mean((2, 3)))


def test_images_of_another_size_than_the_network_takes_are_named() -> None:
    with pytest.raises(rp.InvalidInputError, match=r"The images are 32 x 32: .*--image-size 224"):
        traced(None, OneSize(), torch.zeros(1, 3, 32, 32))
