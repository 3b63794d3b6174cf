"""The parts of the training images and the guarded test set."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from randprune.errors import DataError, InvalidInputError
from randprune.zoo.dataset import Data, holdout, make_data, partition
from randprune.zoo.splits import TensorSplit


def split(count: int, classes: int = 10, channels: int = 1) -> TensorSplit:
    images = torch.arange(count).view(-1, 1, 1, 1).expand(-1, channels, 6, 6).float()
    return TensorSplit(
        images, torch.arange(count) % classes, (0.0,) * channels, (1.0,) * channels, classes
    )


@pytest.fixture
def data() -> Data:
    return make_data("made", split(400), split(50), sizes=(40, 90), provenance={"source": "here"})


def test_parts_are_disjoint_complete_and_balanced(data):
    parts = (data.fit_indices, data.calibration_indices, data.search_indices)
    assert [len(part) for part in parts] == [270, 40, 90]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(400))
    for part in (data.fit, data.calibration, data.search):
        assert torch.equal(torch.bincount(part.labels), torch.full((10,), len(part) // 10))
    assert len(data.full_train) == 400
    assert data.fit is data.fit


def test_parts_hold_the_images_of_their_indices(data):
    images, labels = next(iter(data.calibration.batches(40)))
    assert images[:, 0, 0, 0].tolist() == data.calibration_indices.tolist()
    assert labels.tolist() == (data.calibration_indices % 10).tolist()


def test_every_prefix_is_balanced_also_with_unequal_classes():
    labels = torch.tensor([0] * 300 + [1] * 100 + [2] * 7)
    fit, calibration, search = partition(labels, 60, 80)
    for part in (fit, calibration, search):
        classes = labels.numpy()[part]
        for stop in range(8, len(part) + 1):
            counts = np.bincount(classes[:stop], minlength=3)
            expected = stop * np.array([300, 100, 7]) / 407
            assert np.all(np.abs(counts - expected) <= 2)


def test_parts_are_random_and_follow_the_seed():
    labels = torch.arange(1000) % 10
    first, same, other = (partition(labels, 100, 100, seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not np.array_equal(np.sort(first[1]), np.sort(other[1]))
    # Neither sorted nor stepped: the images of one class are not the first ones of that class.
    assert set(first[1] // 100) == set(range(10))


def test_calibration_does_not_depend_on_the_search_size():
    labels = torch.arange(1000) % 10
    assert np.array_equal(partition(labels, 100, 50)[1], partition(labels, 100, 300)[1])


def test_parts_are_the_same_in_another_process():
    code = (
        "import torch; from randprune.zoo.dataset import partition;"
        "print(partition(torch.arange(200) % 7, 20, 30, seed=5)[1].tolist())"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == str(partition(torch.arange(200) % 7, 20, 30, seed=5)[1].tolist())


@pytest.mark.parametrize(
    ("count", "calibration", "search"), [(50_000, 2_000, 5_000), (1_000, 100, 200), (10, 1, 2)]
)
def test_default_sizes(count, calibration, search):
    parts = partition(torch.arange(count) % 10)
    assert [len(part) for part in parts[1:]] == [calibration, search]


def test_more_than_there_is_is_a_data_error():
    with pytest.raises(DataError, match="400 training images cannot give"):
        make_data("made", split(400), split(50), sizes=(300, 100))


@pytest.mark.parametrize(
    ("sizes", "name"), [((0, 10), "calibration"), ((10, -1), "search"), ((2.5, 1), "calibration")]
)
def test_sizes_are_numbers_of_samples(sizes, name):
    with pytest.raises(InvalidInputError, match=f"'{name}' parameter must be a number of samples"):
        make_data("made", split(400), split(50), sizes=sizes)


def test_the_test_set_is_counted(data):
    assert data.test_opened == 0
    data.describe()
    assert data.test_opened == 0
    assert len(data.open_test("final accuracy")) == 50
    data.open_test("dense accuracy")
    assert data.test_opened == 2
    assert data.test_reasons == ("final accuracy", "dense accuracy")
    with pytest.raises(InvalidInputError, match="reason"):
        data.open_test(" ")
    assert not hasattr(data, "test")


def test_describe_is_provenance(data):
    found = data.describe()
    assert found["name"] == "made"
    assert found["source"] == "here"
    assert (found["fit_images"], found["calibration_images"], found["search_images"]) == (
        270,
        40,
        90,
    )
    assert found["train_fingerprint"] == data.full_train.fingerprint
    assert found["test_fingerprint"] != found["train_fingerprint"]


def test_train_and_test_must_agree():
    with pytest.raises(DataError, match="differ"):
        make_data("made", split(400), split(50, channels=3))
    with pytest.raises(DataError, match="10 and 9 classes"):
        make_data("made", split(400), split(50, classes=9))
    with pytest.raises(DataError, match="2 class names"):
        make_data("made", split(400), split(50), ("cat", "dog"))


def test_holdout_is_balanced_and_disjoint():
    kept, held = holdout(torch.arange(100) % 5, 0.2, seed=0)
    assert np.bincount(held % 5).tolist() == [4] * 5
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(100))
    with pytest.raises(DataError, match="1 image cannot"):
        holdout(torch.zeros(1, dtype=torch.int64), 0.2, seed=0)
