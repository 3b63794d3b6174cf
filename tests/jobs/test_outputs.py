"""A network of many classes on folders of a few of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from randprune.errors import InvalidInputError
from randprune.jobs.opening import check_outputs
from randprune.zoo import Data, load_data


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(4):
                Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / f"{index}.png")
    return tmp_path


def load(images: Path, **options: object) -> Data:
    return load_data(f"imagefolder:{images}", size=8, calibration=2, search=2, **options)


def network(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, outputs))  # fmt: skip


def test_folders_in_their_own_order_do_not_fit_a_network_that_knows_more(images: Path) -> None:
    example = torch.zeros(1, 3, 8, 8)
    data = load(images)
    check_outputs(network(2), data, example)
    with pytest.raises(InvalidInputError, match=r"tells 5 classes apart.* 2 class folders.*JSON"):
        check_outputs(network(5), data, example)


def test_a_list_of_the_networks_classes_settles_it(images: Path) -> None:
    names = images / "names.json"
    names.write_text(json.dumps(["ant", "cat", "cow", "dog", "emu"]))
    check_outputs(network(5), load(images, classes=names), torch.zeros(1, 3, 8, 8))
