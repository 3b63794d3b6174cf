"""What proposes networks holds no test image, whatever it looks through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from randprune.errors import DataError
from randprune.zoo import as_data, load_data

SCRIPT = Path(__file__).with_name("hostile_method.py")


def test_a_method_that_looks_at_everything_finds_no_test_image(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failed"] == []
    assert found["known"] > 100  # the attack would know one if it saw it
    assert found["training_images"] > 500  # as it sees those of training
    assert found["test_images"] == 0
    assert found["opened"] == [
        "DataError",
        "DataError",
        True,
    ]  # unsealed with nothing: still sealed
    assert found["use"] == [0, 1]


def test_sealed_data_know_their_test_set_and_do_not_hold_it() -> None:
    whole = load_data("digits", calibration=100, search=150)
    sealed = whole.sealed()
    assert sealed.is_sealed
    assert sealed.sealed() is sealed
    assert sealed.describe() == whole.describe()
    with pytest.raises(DataError, match="is sealed"):
        sealed.open_test("a look")
    assert sealed.test_opened == 0
    again = sealed.unsealed(whole)
    assert len(again.open_test("final numbers")) == whole.describe()["test_images"]
    images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 10
    others = as_data(((images, labels), (images[:20], labels[:20])))
    with pytest.raises(DataError, match="have changed since the run began"):
        sealed.unsealed(others)
