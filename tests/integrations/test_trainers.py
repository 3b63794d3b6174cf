"""The examples of trainers of one's own: each trains what it is given, and the job measures it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

import randprune as rp
from randprune.zoo.vision import torchvision

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "trainers.py"
FAST = {"output": {"latency_seconds": 0.0}, "finalists": {"count": 1}}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trainers_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["plain", "lightning", "transformers"])
def test_a_trainer_of_ones_own(example: ModuleType, name: str) -> None:
    if name != "plain":
        torchvision()  # both import it, which fails where it does not import by itself
        pytest.importorskip(name)
    torch.manual_seed(0)
    train, test = example.digits()
    dense = example.network()
    example.plain(train, epochs=2)(dense)
    result = rp.prune(
        dense,
        {"train": train, "test": test},
        budget=0.3,
        candidates=2,
        finetune=example.TRAINERS[name](train),
        settings=FAST,
    )
    assert result.accuracy(stage="finetuned") > max(0.8, result.accuracy(stage="cut"))
