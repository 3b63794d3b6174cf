"""Images for calibration and search that the network was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pruning_jobs import SETTINGS, digits, job
from torch import Tensor

import randprune as rp
from randprune.jobs.opening import images_of_recipe
from randprune.recipe import PruneRecipe
from randprune.zoo.data import as_data
from randprune.zoo.dataset import balanced

QUICK: dict[str, Any] = {"settings": SETTINGS, "finetune": None, "candidates": 2}


def fresh(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Digits with a little noise: images that are in no split."""
    split = digits().full_train
    images, labels = next(split.batches(count))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return images + 0.05 * noise, labels


def test_fresh_images_take_the_place_of_training_images() -> None:
    data, plain = digits(), digits()
    ours = as_data(fresh(150, 0)).full_train
    found = data.with_fresh(search=ours)
    assert len(found.search) == len(ours)
    assert found.search.fingerprint == ours.fingerprint
    assert found.calibration.fingerprint == plain.calibration.fingerprint
    assert len(found.fit) == len(plain.fit) + len(plain.search)
    together = np.concatenate([found.fit_indices, found.calibration_indices])
    assert sorted(together.tolist()) == list(range(len(plain.full_train)))
    assert found.describe()["search_images"] == len(ours)
    assert "search_fingerprint" not in plain.describe()
    assert data.with_fresh().describe() == plain.describe()


def test_a_job_repairs_and_ranks_with_them(tmp_path: Path) -> None:
    calibration, search = fresh(120, 1), fresh(130, 2)
    given = {"calibration_data": calibration, "search_data": search}
    result = job(tmp_path, **QUICK, **given)
    row = result.network("searched")
    assert row.search is not None
    assert row.search.images == 130
    moments = next(entry for entry in result.ledger if entry.key == "moments")
    assert moments.images_forward == 120
    assert result.accuracy("dense") == job(None, **QUICK).accuracy("dense")
    # Other images are another job; the same ones are the same.
    job(tmp_path, **QUICK, **given)
    assert not (tmp_path / "recipe-2.toml").exists()
    job(tmp_path, **QUICK, calibration_data=fresh(120, 3), search_data=search)
    assert (tmp_path / "recipe-2.toml").exists()


def test_images_that_cannot_serve_are_refused() -> None:
    data = digits()
    with pytest.raises(rp.DataError, match=r"The search data are the test images of digits"):
        data.with_fresh(search=data.open_test("to try what must not be"))
    other = as_data((torch.rand(20, 1, 9, 9), torch.arange(20) % 10)).full_train
    with pytest.raises(rp.DataError, match=r"calibration data has images \(1, 9, 9\)"):
        data.with_fresh(calibration=other)


def test_a_recipe_names_them(tmp_path: Path) -> None:
    images, labels = fresh(200, 4)
    folder = tmp_path / "fresh"
    folder.mkdir()
    pixels = (images[:, 0] * 255).clamp(0, 255).to(torch.uint8).numpy()
    for part in ("train-0", "test"):
        np.savez(folder / f"{part}.npz", images=pixels, labels=labels.numpy())
    source, options = f"npz:{folder}", {"mean": [0.5], "std": [0.25]}
    section = {"spec": source, "options": options, "calibration": 40, "search": 50}
    asked = {"data": {**section, "search_data": source}}
    recipe = PruneRecipe.parse(asked)
    assert PruneRecipe.from_toml(recipe.to_toml()) == recipe
    data = images_of_recipe(recipe)
    assert (len(data.calibration), len(data.search)) == (40, 50)
    counts = data.search.labels.bincount(minlength=10)
    assert int(counts.max() - counts.min()) <= 1
    assert "search_data" not in PruneRecipe.parse({"data": section}).to_toml()


def test_a_part_is_as_balanced_as_can_be() -> None:
    split = as_data(fresh(500, 5)).full_train
    assert balanced(split, 1000, 0) is split
    counts = balanced(split, 100, 0).labels.bincount(minlength=10)
    assert int(counts.sum()) == 100
    assert int(counts.max() - counts.min()) <= 2
