"""A method that looks for the test images, in a process of its own.

python hostile_method.py FOLDER     prints, as JSON, what it could reach; the run is in FOLDER
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from randprune.bench import BenchRecipe, run_bench
from randprune.bench.methods import Task, methods
from randprune.space import Selection

FOUND: dict[str, Any] = {"test_images": 0, "training_images": 0, "opened": []}


def arrays() -> Iterator[np.ndarray]:
    """Every array and tensor of at least 1,000 numbers that lives in this process."""
    seen: set[int] = set()
    waiting = list(gc.get_objects())
    for value in waiting:
        for part in (value, *gc.get_referents(value)):
            if id(part) in seen or type(part) not in (torch.Tensor, np.ndarray):
                continue
            seen.add(id(part))
            array = part.detach().float().numpy() if isinstance(part, torch.Tensor) else part
            if array.size >= 1000 and array.dtype.kind in "fiu":
                yield array


def pictures(array: np.ndarray) -> set[bytes]:
    """The 8 x 8 images in an array, whatever their scale, as what is dark and what is light."""
    if array.size % 64 or array.ndim < 2:
        return set()
    rows = array.reshape(-1, 64).astype(np.float64)
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    shares = (rows - low) / np.maximum(high - low, 1e-9)
    return {row.tobytes() for row in np.round(16 * shares).astype(np.uint8)}


@methods.register("hostile")
@dataclass(frozen=True)
class Hostile:
    """Uniform widths, after a look at everything."""

    uses_criterion: ClassVar[bool] = False
    words: ClassVar[str] = "Looks at everything."

    def propose(self, task: Task) -> Selection:
        for array in arrays():
            found = pictures(array)
            FOUND["test_images"] = max(FOUND["test_images"], len(found & TEST))
            FOUND["training_images"] = max(FOUND["training_images"], len(found & OTHERS))
        session = task.evaluate.__self__.job.session
        for attempt in (
            lambda: session.data.open_test("only a look"),
            lambda: session.test_evaluator("only a look"),
            lambda: session.data.unsealed(session.data),
        ):
            try:
                attempt()
                FOUND["opened"].append(True)
            except Exception as error:
                FOUND["opened"].append(type(error).__name__)
        return task.select(task.uniform_widths())


TEST: set[bytes] = set()
OTHERS: set[bytes] = set()


def main() -> None:
    from randprune.zoo import load_data

    # Which pictures are test images: known from outside, as their bytes alone.
    data = load_data("digits", calibration=100, search=150)
    for known, part in ((OTHERS, data.full_train), (TEST, data.open_test("the attack's own"))):
        for images, _ in part.batches(500):
            known.update(pictures(images.numpy()))
    TEST.difference_update(OTHERS)
    FOUND["known"] = len(TEST)
    del data, part, images
    gc.collect()
    recipe = BenchRecipe.parse(
        {
            "model": {"spec": "randprune:digits_cnn"},
            "data": {"spec": "digits", "calibration": 100, "search": 150},
            "pretrain": {"epochs": 1},
            "budget": {"tolerance": 0.03},
            "design": {"draws": 1, "epochs": [0]},
            "criteria": ["l1"],
            "methods": {
                "hostile": {},
                "random_search": {"options": {"candidates": 2}},
                "uniform": {"criteria": ["l1"]},
                "random_channels": {},
            },
            "output": {"workers": 0},
        }
    )
    run = run_bench(recipe, out=Path(sys.argv[1]))
    FOUND["use"] = [run.test_set.before_final, run.test_set.final]
    FOUND["failed"] = [proposal.error for proposal in run.proposals if proposal.error]
    print(json.dumps(FOUND))


if __name__ == "__main__":
    main()
