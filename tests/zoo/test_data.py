"""What users have, as a `Data`: arrays, Datasets, DataLoaders, splits."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from randprune.errors import DataError, InvalidInputError
from randprune.zoo.data import FolderSplit, TensorSplit, as_data, in_memory, load_data
from randprune.zoo.live_images import LiveImages


def pair(count: int = 60, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.arange(count)[:, None, None, None].expand(-1, 3, 8, 10).to(dtype)
    return images.contiguous(), torch.arange(count) % 4


class Pictures(Dataset):
    """PIL images whose grey value is their position."""

    def __init__(self, count: int = 40) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int):
        return Image.new("RGB", (10, 8), (position,) * 3), position % 4


FORMS = {
    "mapping": lambda: {"train": pair(), "test": pair(20)},
    "mapping with val": lambda: {"train": pair(), "val": pair(20)},
    "tuple of pairs": lambda: (pair(), pair(20)),
    "arrays": lambda: tuple(tuple(t.numpy() for t in pair(n)) for n in (60, 20)),
    "channels last arrays": lambda: tuple(
        (pair(n)[0].permute(0, 2, 3, 1).numpy(), pair(n)[1].numpy()) for n in (60, 20)
    ),
    "double and int32": lambda: tuple(
        (pair(n)[0].double(), pair(n)[1].to(torch.int32)) for n in (60, 20)
    ),
    "datasets": lambda: (TensorDataset(*pair()), TensorDataset(*pair(20))),
    "loaders": lambda: (
        DataLoader(TensorDataset(*pair()), batch_size=7, shuffle=True),
        DataLoader(TensorDataset(*pair(20)), batch_size=7),
    ),
    "samples": lambda: (list_dataset(60), list_dataset(20)),
}


def list_dataset(count: int) -> Dataset:
    class Samples(Dataset):
        def __len__(self) -> int:
            return count

        def __getitem__(self, position: int):
            return pair(count)[0][position], position % 4

    return Samples()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_data(form):
    data = as_data(FORMS[form](), calibration=8, search=12)
    images, labels = next(iter(data.full_train.batches(60)))
    assert torch.equal(images, pair()[0])
    assert torch.equal(labels, pair()[1])
    assert len(data.open_test("a test")) == 20
    assert (len(data.calibration), len(data.search), data.num_classes) == (8, 12, 4)


def test_without_a_test_set_a_fifth_is_held_out():
    data = as_data(pair(), calibration=8, search=12)
    test = data.open_test("a test")
    assert (len(test), len(data.full_train)) == (12, 48)
    assert torch.bincount(test.labels).tolist() == [3] * 4
    seen = [x[:, 0, 0, 0] for split in (test, data.full_train) for x, _ in split.batches(60)]
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(60.0))
    assert "20% of the given images" in data.describe()["test_set"]


def test_pictures_are_scaled_as_uint8():
    data = as_data(Pictures(), mean=(0.5,) * 3, std=(0.25,) * 3)
    assert isinstance(data.full_train, LiveImages)
    images, labels = next(iter(data.full_train.batches(1)))
    position = int((images[0, 0, 0, 0] * 0.25 + 0.5) * 255 + 0.5)
    assert position % 4 == labels[0]
    assert images.shape == (1, 3, 8, 10)


def test_grey_arrays_get_a_channel():
    data = as_data((np.zeros((40, 8, 8), np.uint8), np.arange(40) % 2))
    assert data.image_shape == (1, 8, 8)


def test_data_names_and_splits_pass_through():
    data = load_data("digits", calibration=50)
    assert as_data(data) is data
    assert len(as_data("digits", calibration=50).calibration) == 50
    again = as_data((data.full_train, data.open_test("a test")))
    assert again.full_train is data.full_train


def test_the_callers_images_are_not_changed():
    images, labels = pair()
    before = images.clone()
    data = as_data((images, labels), mean=(0.1,) * 3, std=(2.0,) * 3)
    for batch, _ in data.full_train.batches(10):
        batch.zero_()
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((torch.zeros(0, 3, 8, 8), torch.zeros(0).long()), "not be empty"),
        ((torch.zeros(40, 8), torch.zeros(40).long()), r"\(N, C, H, W\)"),
        ((torch.zeros(40, 3, 8, 8), torch.zeros(39).long()), "40 images but 39 labels"),
        ((torch.zeros(40, 3, 8, 8), torch.zeros(40)), "must be integers"),
        ((torch.zeros(40, 3, 8, 8), torch.zeros(40, 4).long()), "must be integers of shape"),
        ((torch.zeros(40, 3, 8, 8), torch.zeros(40).bool()), "must be integers"),
        ((torch.full((40, 3, 8, 8), torch.nan), torch.zeros(40).long()), "NaN or infinite"),
        ((torch.zeros(40, 3, 8, 8).int(), torch.zeros(40).long()), "uint8 or float32"),
        ((torch.zeros(40, 3, 8, 8), torch.arange(40) % 4 + 1), "lower classes have no image"),
        ((torch.zeros(40, 3, 8, 8), torch.arange(40) % 4 - 1), r"lie outside 0\.\.2"),
    ],
)
def test_wrong_content_is_a_data_error(content, message):
    with pytest.raises(DataError, match=message):
        as_data(content)


def test_the_message_names_the_part():
    bad = (torch.zeros(20, 3, 8, 10), torch.full((20,), 4))
    with pytest.raises(DataError, match=r"test data cannot be used. 20 of 20 labels"):
        as_data((pair(), bad))
    assert as_data((pair(), bad), num_classes=6).num_classes == 6


@pytest.mark.parametrize(
    "obj", [3, None, {"train": pair(), "extra": pair()}, {"test": pair()}, (1, 2), {"train": 5}]
)
def test_other_objects_are_refused(obj):
    with pytest.raises(InvalidInputError, match="data must"):
        as_data(obj)


def test_a_contradicting_number_of_classes_is_a_data_error():
    data = load_data("digits")
    assert as_data(data, num_classes=10) is data
    for obj in (data, "digits", (data.full_train, data.open_test("a test"))):
        with pytest.raises(DataError, match="10 classes, not 7"):
            as_data(obj, num_classes=7)


def test_iterable_datasets_are_read_in_their_order():
    class Stream(IterableDataset):
        def __len__(self) -> int:
            return 60

        def __iter__(self):
            return zip(*pair(), strict=True)

    data = as_data(Stream(), calibration=4, search=8)
    seen = [x[:, 0, 0, 0] for x, _ in data.full_train.batches(48)]
    assert len(data.full_train) == 48
    assert len(torch.cat(seen).unique()) == 48


def test_wrong_datasets():
    class Wrong(Dataset):
        def __init__(self, samples):
            self.samples = samples

        def __len__(self):
            return len(self.samples)

        def __getitem__(self, position):
            return self.samples[position]

    with pytest.raises(DataError, match="Dataset is empty"):
        as_data(Wrong([]))
    with pytest.raises(DataError, match="Sample 1 of the training Dataset"):
        as_data(Wrong([(torch.zeros(3, 8, 8), 0), torch.zeros(3)]))
    with pytest.raises(DataError, match=r"Image 1 .* has shape \(3, 8, 9\), not \(3, 8, 8\)"):
        as_data(Wrong([(torch.zeros(3, 8, 8), 0), (torch.zeros(3, 8, 9), 0)]))


def test_a_dataset_is_read_anew_in_each_pass_and_held_only_where_it_fits():
    class Noisy(Pictures):
        """Draws from all three generators; knows its labels."""

        targets = tuple(position % 4 for position in range(40))
        reads = 0

        def __getitem__(self, position: int):
            Noisy.reads += 1
            noise = torch.rand(3, 8, 10) + random.random() + np.random.rand()  # noqa: NPY002
            return noise, position % 4

    data = as_data(Noisy(), calibration=4, search=4)
    assert Noisy.reads == 1  # labels are known, one image tells the shape
    before = torch.get_rng_state(), random.getstate()

    def images(seed: int | None) -> torch.Tensor:
        shuffle = None if seed is None else torch.Generator().manual_seed(seed)
        return torch.cat([x for x, _ in data.full_train.batches(8, shuffle=shuffle)])

    assert torch.equal(images(None), images(None))  # all networks see the same
    assert torch.equal(images(1), images(1))
    first, second = images(1), images(2)
    totals = [x.double().sum((1, 2, 3)) for x in (first, second)]
    assert not torch.isin(*totals).any()  # random transforms stay random
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    part = data.search
    assert in_memory(part, limit_bytes=4 * 4 * 3 * 8 * 10 - 1) is part
    held = in_memory(part)
    assert isinstance(held, TensorSplit)
    assert torch.equal(held.images, torch.cat([x for x, _ in part.batches(256)]))
    assert torch.equal(held.labels, part.labels)


def test_a_sample_that_cannot_be_read_is_named():
    class Broken(Pictures):
        targets = (0,) * 40

        def __getitem__(self, position: int):
            if position == 7:
                raise OSError("no such file")
            return super().__getitem__(position)

    data = as_data(Broken(), num_classes=4)
    with pytest.raises(DataError, match=r"Sample 7 of the training Dataset cannot .* OSError"):
        list(data.full_train.batches(16))


def test_in_memory_decodes_what_fits(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    labels = torch.zeros(1, dtype=torch.int64)
    split = FolderSplit(tmp_path, ("a.png",), labels, (0.0,) * 3, (1.0,) * 3, 1, 8, 8)
    assert isinstance(in_memory(split), TensorSplit)
    assert in_memory(split, limit_bytes=191) is split
    whole = in_memory(split)
    assert in_memory(whole) is whole


@pytest.mark.parametrize("label", [2**63 - 1, 2**64 - 1, 2**20])
def test_labels_that_are_no_class_indices(label):
    images = np.zeros((6, 3, 4, 4), np.uint8)
    labels = np.full(6, label, np.uint64)
    with pytest.raises(DataError, match=f"the training data is {label}; labels are class indices"):
        as_data((images, labels))

    class Samples(Dataset):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, position: int):
            return torch.zeros(3, 4, 4), label

    with pytest.raises(DataError, match=f"sample 0 of the training Dataset is {label}"):
        as_data(Samples())


def test_an_enormous_number_of_classes():
    images = np.zeros((60, 3, 4, 4), np.uint8)
    with pytest.raises(DataError, match="labels are class indices"):
        as_data((images, np.arange(60) % 3), num_classes=2**62)


def test_16_bit_images_say_how_to_scale_them():
    images = np.zeros((6, 3, 4, 4), np.uint16)
    with pytest.raises(DataError, match=r"uint16 instead; scale them by their range"):
        as_data((images, np.arange(6) % 3))
