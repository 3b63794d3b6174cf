"""Named sources: what they give, and a clear error for each way in which files can be wrong."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from randprune.errors import DataError, InvalidInputError
from randprune.zoo.data import FolderSplit, TensorSplit, load_data
from randprune.zoo.vision import torchvision

CLASSES = ("bee", "cat", "dog")


def write_npz(path: Path, count: int = 12, **changes) -> None:
    rng = np.random.default_rng(count)
    content = {
        "images": rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
        "labels": (np.arange(count) % 3).astype(np.uint8),
        "classes": np.array(CLASSES),
        **changes,
    }
    np.savez(path, **{key: value for key, value in content.items() if value is not None})


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    for index in range(3):
        write_npz(tmp_path / f"train-{index}.npz", 12 + 3 * index)
    write_npz(tmp_path / "test.npz", 9)
    return tmp_path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        for name in CLASSES:
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return tmp_path


def test_digits():
    data = load_data("digits")
    assert data.image_shape == (1, 8, 8)
    assert len(data.full_train) + len(data.open_test("a test")) == 1797
    assert data.class_names == tuple("0123456789")
    counts = torch.bincount(data.open_test("a test").labels)
    assert counts.min() >= 42
    assert counts.max() <= 48
    pixels = torch.cat([x for x, _ in data.full_train.batches(500)])
    assert abs(pixels.mean()) < 0.02
    assert abs(pixels.std() - 1) < 0.02
    assert isinstance(data.full_train, TensorSplit)
    assert (data.full_train.flip, data.full_train.pad) == (False, 1)
    assert data.describe()["train_fingerprint"] == load_data("digits").full_train.fingerprint


def test_digits_can_be_enlarged():
    data = load_data("digits", size=32, calibration=100, search=200, seed=3)
    assert data.image_shape == (1, 32, 32)
    assert [len(data.calibration), len(data.search)] == [100, 200]
    # Same images in the same parts of the data as in the original size.
    small = load_data("digits", calibration=100, search=200, seed=3)
    assert torch.equal(data.search.labels, small.search.labels)


def test_npz(npz):
    data = load_data(f"npz:{npz}", calibration=5, search=10)
    assert data.name == f"npz:{npz.name}"
    assert data.class_names == CLASSES
    assert len(data.full_train) == 12 + 15 + 18
    first, second = (np.load(npz / f"train-{index}.npz") for index in (0, 1))
    assert isinstance(data.full_train, TensorSplit)
    stored = data.full_train.images.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(stored[:12], first["images"])
    assert np.array_equal(stored[12:27], second["images"])
    assert data.full_train.mean == (0.485, 0.456, 0.406)
    other = load_data(f"npz:{npz}", mean=[0.1, 0.2, 0.3], std=[1, 1, 1], calibration=5, search=9)
    assert isinstance(other.full_train, TensorSplit)
    assert other.full_train.mean == (0.1, 0.2, 0.3)


def test_npz_shards_come_in_numerical_order(npz):
    write_npz(npz / "train-10.npz", 21)
    data = load_data(f"npz:{npz}", calibration=5, search=10)
    assert isinstance(data.full_train, TensorSplit)
    last = data.full_train.images[-21:].permute(0, 2, 3, 1).numpy()
    assert np.array_equal(last, np.load(npz / "train-10.npz")["images"])


def test_npz_of_grey_images_without_class_names(tmp_path):
    for name in ("train-0", "test"):
        grey = np.zeros((12, 8, 8), dtype=np.uint8)
        write_npz(tmp_path / f"{name}.npz", images=grey, classes=None)
    data = load_data(f"npz:{tmp_path}", calibration=2, search=2)
    assert data.image_shape == (1, 8, 8)
    assert data.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, r"lacks \['images'\]; it holds \['classes', 'labels'\]"),
        ({"images": np.zeros((12, 8, 8, 3), np.float32)}, "must be uint8"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8), "labels": np.zeros(0, int)}, "not empty"),
        ({"images": np.zeros((11, 8, 8, 3), np.uint8)}, "must be 11 integers"),
        ({"images": np.zeros((12, 9, 9, 3), np.uint8)}, "different shapes"),
        ({"labels": np.zeros(12)}, "must be 12 integers"),
        ({"labels": np.arange(12)}, r"must lie in 0\.\.2. Got 0\.\.11"),
        ({"labels": np.arange(12) - 1}, r"Got -1\.\.10"),
        ({"classes": np.array(["bee", "cat", "cow"])}, "name different classes"),
        ({"images": np.array([{}] * 12, dtype=object)}, "cannot be read: Object arrays"),
        ({"classes": np.array("bee")}, r"must be a list of names.*Got <U3 of shape \(\)"),
        ({"classes": np.zeros((3, 2))}, "must be a list of names"),
        ({"labels": np.array(3)}, "must be 12 integers"),
        ({"images": np.array(3, np.uint8)}, "must be uint8 of shape"),
    ],
)
def test_wrong_npz_content(npz, changes, message):
    write_npz(npz / "train-1.npz", 12, **changes)
    with pytest.raises(DataError, match=message):
        load_data(f"npz:{npz}")


@pytest.mark.parametrize("label", [2**63 - 1, 2**64 - 1, 2**20])
def test_labels_that_are_no_class_indices(tmp_path, label):
    """Without class names their number followed from the labels: 19 s to a MemoryError."""
    labels = np.full(12, label, np.uint64)
    for name in ("train-0", "test"):
        write_npz(tmp_path / f"{name}.npz", labels=labels, classes=None)
    with pytest.raises(DataError, match=f"is {label}; labels are class indices"):
        load_data(f"npz:{tmp_path}")


def test_an_array_that_claims_terabytes(npz):
    head = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (10**7, 512, 512, 3)}
    np.lib.format.write_array_header_1_0(head, claim)
    with zipfile.ZipFile(npz / "train-1.npz", "w") as archive:
        archive.writestr("images.npy", head.getvalue() + bytes(100))
    with pytest.raises(DataError, match=r"images\.npy in .* claims 7,864,320,000,000 bytes"):
        load_data(f"npz:{npz}")


def test_arrays_that_do_not_fit_into_memory(npz, monkeypatch):
    monkeypatch.setattr("randprune.zoo.sources.memory_bytes", lambda: 2000)
    with pytest.raises(DataError, match=r"take 0\.0 GiB, this machine has 0\.0"):
        load_data(f"npz:{npz}")


@pytest.mark.parametrize(
    "content", [b"\x93NUMPY\x01\x00" + bytes(50), b"\x80\x04N.", b"PK\x03\x04"]
)
def test_files_that_are_no_npz(npz, content):
    (npz / "train-1.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"train-1\.npz cannot be read"):
        load_data(f"npz:{npz}")


def test_names_that_are_not_utf_8(images):
    """They reach records, pages and terminals as text that all of these can hold."""
    for part in ("train", "val"):
        os.rename(images / part / "dog", os.fsencode(images / part) + b"/\xffdog")
    data = load_data(f"imagefolder:{images}", size=16, calibration=3, search=6)
    assert data.class_names == ("bee", "cat", "\\xffdog")
    assert json.dumps(data.describe(), ensure_ascii=False).encode()
    os.rename(images, os.fsencode(images) + b"\xff")
    data = load_data(f"imagefolder:{os.fsdecode(os.fsencode(images) + bytes([255]))}", size=16)
    assert data.name.endswith("\\xff")


def test_a_class_list_with_an_enormous_label(images):
    names = images / "names.json"
    names.write_text(json.dumps({"bee": 0, "cat": 1, "dog": 10**18}))
    with pytest.raises(DataError, match=f"is {10**18}; labels are class indices"):
        load_data(f"imagefolder:{images}", classes=names)


def test_hidden_folders_inside_a_class_are_no_data(images):
    hidden = images / "train" / "cat" / ".ipynb_checkpoints"
    hidden.mkdir()
    (images / "train" / "cat" / "0.jpg").rename(hidden / "0.jpg")
    assert len(load_data(f"imagefolder:{images}", calibration=3, search=6).full_train) == 17


def test_test_labels_out_of_range_are_found_at_once(npz):
    write_npz(npz / "test.npz", 9, labels=np.full(9, 3))
    with pytest.raises(DataError, match=r"test\.npz must lie in 0\.\.2. Got 3\.\.3"):
        load_data(f"npz:{npz}")


@pytest.mark.parametrize("keep", [0, 100, 1500])
def test_truncated_npz(npz, keep):
    path = npz / "train-2.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"train-2\.npz cannot be read"):
        load_data(f"npz:{npz}")


def test_damaged_npz(npz):
    path = npz / "train-2.npz"
    content = bytearray(path.read_bytes())
    content[300:340] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-2\.npz cannot be read"):
        load_data(f"npz:{npz}")


def test_missing_npz(npz):
    (npz / "test.npz").unlink()
    with pytest.raises(DataError, match=r"test\.npz does not exist"):
        load_data(f"npz:{npz}")
    for path in npz.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"No train-\*\.npz"):
        load_data(f"npz:{npz}")


def test_imagefolder(images):
    data = load_data(f"imagefolder:{images}", size=16, calibration=3, search=6)
    assert data.class_names == CLASSES
    assert data.image_shape == (3, 16, 16)
    test = data.open_test("a test")
    assert isinstance(test, FolderSplit)
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert test.resize == 18
    assert test.files[2] == "val/cat/0.jpg"
    assert data.full_train.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert torch.bincount(data.search.labels).tolist() == [2, 2, 2]
    batch, _ = next(iter(data.fit.batches(4)))
    assert batch.shape == (4, 3, 16, 16)


def test_a_folder_called_test_holds_the_test_images(images):
    (images / "val").rename(images / "test")
    test = load_data(f"imagefolder:{images}", size=16).open_test("a test")
    assert test.files[2] == "test/cat/0.jpg"


def test_small_images_of_one_size_are_not_enlarged(images):
    data = load_data(f"imagefolder:{images}")
    assert data.image_shape == (3, 20, 20)
    assert data.open_test("a test").resize == 20
    assert data.provenance["files"] == "20 x 24"
    asked = load_data(f"imagefolder:{images}", size=224)
    assert asked.image_shape == (3, 224, 224)
    assert asked.open_test("a test").resize == 256
    Image.new("RGB", (30, 20)).save(images / "train" / "cat" / "0.jpg")
    mixed = load_data(f"imagefolder:{images}")
    assert mixed.image_shape == (3, 224, 224)
    assert mixed.provenance["files"] == "of many sizes"


def test_large_images_are_brought_to_the_usual_size(images):
    for path in images.rglob("*.jpg"):
        Image.new("RGB", (260, 250)).save(path)
    data = load_data(f"imagefolder:{images}")
    assert data.image_shape == (3, 224, 224)
    assert data.open_test("a test").resize == 256


@pytest.mark.parametrize(
    "document", [["ant", "bee", "cow", "cat", "dog"], {"bee": 1, "cat": 3, "dog": 4, "ant": 0}]
)
def test_imagefolder_with_the_classes_of_a_wider_network(images, document):
    names = images / "names.json"
    names.write_text(json.dumps(document))
    data = load_data(f"imagefolder:{images}", size=16, classes=names)
    assert data.num_classes == 5
    assert data.open_test("a test").labels.tolist() == [1, 1, 3, 3, 4, 4]
    assert data.class_names[3] == "cat"
    assert torch.bincount(data.search.labels, minlength=5).tolist() == [0, 1, 0, 1, 1]


def test_class_lists_that_do_not_fit(images):
    names = images / "names.json"
    for content, message in [
        ('["bee", "cat"]', r"1 class folders of .* are not in .*: \['dog'\]"),
        ("[", "cannot be read"),
        ("3", "JSON list"),
        ('{"bee": 0, "cat": 0, "dog": 1}', "distinct labels"),
        ('{"bee": 0, "cat": "1", "dog": 2}', "distinct labels"),
    ]:
        names.write_text(content)
        with pytest.raises(DataError, match=message):
            load_data(f"imagefolder:{images}", classes=names)
    with pytest.raises(DataError, match="cannot be read"):
        load_data(f"imagefolder:{images}", classes=images / "absent.json")


def test_wrong_image_folders(images):
    (images / "val" / "dog").rename(images / "val" / "dogs")
    with pytest.raises(DataError, match=r"only in train \['dog'\], only in val \['dogs'\]"):
        load_data(f"imagefolder:{images}")
    for path in (images / "val" / "dogs").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"1 class folders of .* hold no image files: \['dogs'\]"):
        load_data(f"imagefolder:{images}")
    (images / "val").rename(images / "held")
    with pytest.raises(DataError, match=r"val does not exist. Expected .* \(or test/CLASS/\*\)"):
        load_data(f"imagefolder:{images}")
    (images / "val").mkdir()
    with pytest.raises(DataError, match="has no class folders"):
        load_data(f"imagefolder:{images}")


def test_missing_folders_and_unknown_names(tmp_path):
    for kind in ("npz", "imagefolder", "cifar10"):
        with pytest.raises(DataError, match="does not exist"):
            load_data(f"{kind}:{tmp_path / 'absent'}")
        with pytest.raises(InvalidInputError, match=f"'{kind}:DIR'"):
            load_data(kind)
    with pytest.raises(InvalidInputError, match="Did you mean 'imagefolder'"):
        load_data("imagefolders:here")
    with pytest.raises(InvalidInputError, match="no option 'sise'; it has size, mean"):
        load_data("digits", sise=3)
    with pytest.raises(InvalidInputError, match="takes no folder"):
        load_data("digits:here")
    with pytest.raises(InvalidInputError, match="size >= 8"):
        load_data("digits", size=4)


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_a_folder_without_cifar_says_what_to_do(tmp_path, kind):
    with pytest.raises(DataError, match="pass download=True") as caught:
        load_data(f"{kind}:{tmp_path}")
    assert "cifar-10" in str(caught.value)


def test_cifar_through_torchvision(tmp_path, monkeypatch):
    """The archive's own code is torchvision's; what it gives arrives in our layout."""

    class Archive:
        base_folder = "cifar-10-batches-py"
        classes = tuple("abcdefghij")

        def __init__(self, root: Path, train: bool, download: bool) -> None:
            assert (root, download) == (tmp_path, False)
            count = 40 if train else 20
            self.data = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(32, 1)
            self.data = self.data.repeat(32, 2).repeat(3, 3)
            self.targets = [index % 10 for index in range(count)]

    monkeypatch.setattr(torchvision().datasets, "CIFAR10", Archive)
    data = load_data(f"cifar10:{tmp_path}")
    assert data.image_shape == (3, 32, 32)
    assert isinstance(data.full_train, TensorSplit)
    assert data.full_train.images[7].unique().tolist() == [7]
    assert data.class_names == tuple("abcdefghij")
    assert len(data.open_test("a test")) == 20
