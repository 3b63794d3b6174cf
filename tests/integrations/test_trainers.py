"""The examples of trainers that are not ours, each run whole and small."""

from __future__ import annotations

import runpy
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import randprune as rp
from randprune.store import RANDOM_CHANNELS, UNIFORM
from randprune.zoo.vision import torchvision

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEEDS = {
    "plain_loop": "torch",
    "lightning_trainer": "lightning",
    "hugging_face_trainer": "transformers",
}
QUICK: dict[str, Any] = {"output": {"latency_seconds": 0.0}, "finalists": {"count": 1}}

# The trainers warn about what does not concern us, such as a machine without a GPU.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_each_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_an_example_trains_every_network_that_is_compared(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchvision()
    pytest.importorskip(
        NEEDS[name], reason=f"{NEEDS[name]} is not installed (no dependency): make integrations"
    )
    monkeypatch.setattr(rp, "prune", partial(rp.prune, settings=QUICK))
    example = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    result: rp.PruneResult = example["main"](candidates=2, epochs=1)
    trained = {row.role for row in result.networks if row.stage == "finetuned"}
    assert trained == {"searched", UNIFORM, RANDOM_CHANNELS}
    assert result.verification.passed
    assert result.value(stage="finetuned") > 0.2  # of ten classes
