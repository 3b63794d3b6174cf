"""The examples of trainers of one's own: each trains what it is given, and the job measures it."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

import randprune as rp
from randprune.zoo.vision import torchvision

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FAST = {"output": {"latency_seconds": 0.0}, "finalists": {"count": 1}}


def opened(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_example", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return opened("trainers")


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


@pytest.mark.filterwarnings("ignore")
def test_a_network_of_transformers_is_pruned_and_trained_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torchvision()
    pytest.importorskip("transformers")
    monkeypatch.setattr(rp, "prune", partial(rp.prune, settings=FAST))
    result: rp.PruneResult = opened("hugging_face").main(candidates=2, epochs=1)
    trained = {row.role for row in result.networks if row.stage == "finetuned"}
    assert trained == {"searched", "uniform", "random_channels"}
    assert result.verification.passed
    assert type(result.model).__name__ == "ResNetForImageClassification"
    assert result.accuracy(stage="finetuned") > 0.2  # of ten classes
