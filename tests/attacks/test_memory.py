"""Memory that does not suffice: one sentence with the next step, whoever says it and how."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from attacked import QUICK, Digits, images, network
from torch import Tensor, nn

import randprune as rp
from randprune.bench import BenchRecipe, run_bench
from randprune.cli.app import main
from randprune.errors import MemoryLimitError
from randprune.executors import FATAL
from randprune.executors.serve import Fatal
from randprune.memory import memory_errors

LIMIT = 16


class Limited(nn.Module):
    """Runs out of memory, as oneDNN does, on more than 16 images at once."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting() and len(x) > LIMIT:
            raise RuntimeError("could not create a primitive")
        return self.inner(x)


class LimitedDigits(Digits):
    """Likewise, for the digits and with a place in a recipe."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting() and len(x) > LIMIT:
            raise RuntimeError("could not create a primitive")
        return super().forward(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(10**15),
        lambda: np.zeros(10**15).sum(),
        lambda: (_ for _ in ()).throw(RuntimeError("could not create a primitive")),
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB")),
    ],
)
def test_libraries_tell_it_in_many_ways(make: Any) -> None:
    with (
        pytest.raises(MemoryError, match=r"enough memory: .*smaller batches \(a\.b\)") as caught,
        memory_errors("a.b"),
    ):
        make()
    assert isinstance(caught.value, MemoryLimitError)
    assert "\n" not in str(caught.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^something else$"), memory_errors("a.b"):
        raise RuntimeError("something else")


def test_a_job_says_which_batch_to_make_smaller_and_then_goes_on() -> None:
    settings = {**QUICK, "search": {"batch_size": 64}}
    with pytest.raises(
        MemoryLimitError, match=r"primitive.*as in --set search\.batch_size=8, which cal"
    ):
        rp.prune(Limited(), images(), candidates=1, recovery="none", settings=settings)
    settings = {**QUICK, "search": {"batch_size": 8}}
    result = rp.prune(Limited(), images(), candidates=1, recovery="none", settings=settings)
    assert result.verification.passed


def test_a_benchmark_ends_with_it_and_blames_no_row(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = BenchRecipe.parse(
        {
            "plugins": ["test_memory"],
            "model": {"spec": "test_memory:LimitedDigits"},
            "data": {"spec": "digits", "calibration": 32, "search": 64},
            "pretrain": {"epochs": 1, "batch_size": 64},
            "output": {"workers": 0},
        }
    )
    with pytest.raises(MemoryLimitError, match=r"proposals\.batch_size, finetune\.batch_size"):
        run_bench(recipe, out=tmp_path)


def test_it_comes_back_from_another_process_as_it_was() -> None:
    kind = FATAL.index(MemoryLimitError)
    assert isinstance(Fatal(kind, "no memory").error, MemoryLimitError)
    assert all(not issubclass(MemoryLimitError, known) for known in FATAL[:kind])


def test_a_command_ends_with_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(**_: object) -> None:
        raise MemoryError("Unable to allocate 74.5 GiB")

    monkeypatch.setattr("randprune.cli.app.app", full)
    assert main(["inspect", "x"]) == 11
    assert "There is not enough memory: Unable to allocate 74.5 GiB." in capsys.readouterr().err
