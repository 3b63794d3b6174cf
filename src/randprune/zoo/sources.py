"""Named sources of labelled images: embedded digits, .npz files, image folders, CIFAR archives.

A source reads its files, checks them, and returns training and test images as they are; dividing
the training images is `make_data`'s job. Adding a source is one function and one line in `SOURCES`.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from randprune.errors import DataError, InvalidInputError
from randprune.provenance import memory_bytes
from randprune.zoo.dataset import count_classes, holdout, printable
from randprune.zoo.folder import CACHE_BYTES, FolderSplit, ImageCache, common_size, list_images
from randprune.zoo.splits import Split, TensorSplit
from randprune.zoo.vision import torchvision

Numbers = Sequence[float]

# Those that the published CIFAR ResNets and ImageNet networks were trained with.
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Of the embedded digits, over all pixels.
DIGITS_MEAN, DIGITS_STD = (0.305,), (0.376,)

# Readers of an array's header by the version of its format.
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

# Height and width that ImageNet's networks were trained with.
_USUAL_SIZE = 224

# The provenance of labels that are positions in the sorted folder names.
FOLDER_ORDER = "folder order"


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Training and test images as found, with class names and what identifies the source."""

    train: Split
    test: Split
    class_names: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)


def digits(
    folder: str,
    *,
    size: int = 8,
    mean: Numbers = DIGITS_MEAN,
    std: Numbers = DIGITS_STD,
    test_share: float = 0.25,
    test_seed: int = 0,
) -> Source:
    """1,797 handwritten digits that are part of the package: 1 x size x size, ten classes.

    The images of 8 x 8 pixels and 17 grey levels are scaled to 0..255 and enlarged bilinearly where
    a network needs more pixels (`size`). `test_share` of them, class-balanced and drawn by
    `test_seed`, are the test set. Augmentation shifts by up to size / 8 pixels and never flips.
    """
    if folder:
        raise InvalidInputError(
            "The source 'digits' takes no folder, it is part of the package. "
            f"Got {folder!r} after the colon."
        )
    if size < 8 or not 0 < test_share < 1:
        raise InvalidInputError(
            "The digits need size >= 8 and 0 < test_share < 1. "
            f"Got size={size}, test_share={test_share} instead."
        )
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        images = torch.from_numpy(file["images"]).float()[:, None] * (255.0 / 16.0)
        targets = torch.from_numpy(file["labels"]).to(torch.int64)
    if size != 8:
        images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    whole = TensorSplit(
        images.round().to(torch.uint8),
        targets,
        tuple(mean),
        tuple(std),
        10,
        flip=False,
        pad=size // 8,
    )
    kept, held = holdout(targets, test_share, test_seed)
    names = tuple(str(digit) for digit in range(10))
    options = {"size": size, "test_share": test_share, "test_seed": test_seed}
    return Source(whole.subset(kept), whole.subset(held), names, options)


def npz(folder: str, *, mean: Numbers | None = None, std: Numbers | None = None) -> Source:
    """`train-*.npz` and `test.npz` in a folder, all in memory.

    Each file holds `images`, uint8 (N, H, W, C) or (N, H, W), `labels`, integers (N,), and the
    training files may hold `classes`, the class names, in label order. Normalisation: that of the
    published CIFAR networks for three channels, else mean and deviation 0.5.
    """
    root = _folder(folder, "npz")
    files = sorted(root.glob("train-*.npz"), key=lambda path: (len(path.name), path.name))
    if not files:
        raise DataError(f"No train-*.npz in {root}. Expected train-0.npz, ..., and test.npz.")
    shards = [_read_npz(path) for path in files]
    test_images, test_labels, test_names = _read_npz(root / "test.npz")
    all_names = {names for _, _, names in shards} | {test_names}
    names = max(all_names, key=len)
    if any(other and other != names for other in all_names):
        raise DataError(f"The .npz files in {root} name different classes: {sorted(all_names)}.")
    shapes = {images.shape[1:] for images, _, _ in shards} | {test_images.shape[1:]}
    if len(shapes) > 1:
        raise DataError(f"The .npz files in {root} hold images of different shapes: {shapes}.")
    images = np.concatenate([images for images, _, _ in shards])
    labels = np.concatenate([labels for _, labels, _ in shards])
    if not names:
        names = tuple(map(str, range(count_classes(int(labels.max()), str(root)))))

    channels = images.shape[3]
    default = (RGB_MEAN, RGB_STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    means, deviations = tuple(mean or default[0]), tuple(std or default[1])
    pad = min(images.shape[1:3]) // 8
    train, test = (
        TensorSplit(
            torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(targets.astype(np.int64)),
            means,
            deviations,
            len(names),
            pad=pad,
        )
        for pixels, targets in ((images, labels), (test_images, test_labels))
    )
    return Source(train, test, names)


def imagefolder(
    folder: str,
    *,
    size: int | None = None,
    resize: int | None = None,
    mean: Numbers = RGB_MEAN,
    std: Numbers = RGB_STD,
    classes: str | Path | None = None,
    workers: int | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> Source:
    """`train/CLASS/*` and `val/CLASS/*` image files; `val` becomes the test set.

    Where there is no `val`, `test/CLASS/*` is taken. `size` is the height and width that images
    are brought to; by default 224, or less where all images are smaller and of one size (a sample
    of their headers is read): then their shorter side, so that they are not enlarged.

    Without `classes` the classes are the sorted folder names. With it, a JSON file that holds the
    list of all class folders of the network in label order (e.g. the 1,000 WordNet ids of
    ImageNet) or a mapping folder -> label, images get those labels, so that a 1000-way network is
    evaluated 1000-way on a part of the classes. `resize`, the shorter side before the centre crop,
    defaults to 8/7 of `size` (256 for 224), or to the inferred size.
    """
    root = _folder(folder, "imagefolder")
    held = next((part for part in ("val", "test") if (root / part).is_dir()), "val")
    found = {part: _class_folders(root / part) for part in ("train", held)}
    if found["train"].keys() != found[held].keys():
        only = {
            part: sorted(found[part].keys() - found[other].keys())
            for part, other in (("train", held), (held, "train"))
        }
        raise DataError(
            f"The class folders of train/ and {held}/ in {root} differ: only in train "
            f"{only['train'][:5]}, only in {held} {only[held][:5]}."
        )
    files = [path for folders in found.values() for paths in folders.values() for path in paths]
    own = common_size(files)
    asked = size is not None
    if size is None:
        size = _USUAL_SIZE if own is None else min(_USUAL_SIZE, *own)
    if resize is None:
        enlarged = asked or size == _USUAL_SIZE
        resize = round(size * 8 / 7) if enlarged else size
    labels = {name: index for index, name in enumerate(sorted(found["train"]))}
    if classes is not None:
        labels = _class_labels(Path(classes))
        unknown = sorted(found["train"].keys() - labels.keys())
        if unknown:
            raise DataError(
                f"{len(unknown)} class folders of {root} are not in {classes}: {unknown[:5]}. "
                "The folders must be named as there."
            )
    num_classes = count_classes(max(labels.values()), str(classes or root))
    cache = ImageCache(cache_bytes)
    options: dict[str, Any] = {} if workers is None else {"workers": workers}
    splits = [
        FolderSplit(
            root,
            tuple(path.relative_to(root).as_posix() for name in folders for path in folders[name]),
            torch.tensor([labels[name] for name in folders for _ in folders[name]]),
            tuple(mean),
            tuple(std),
            num_classes,
            size=size,
            resize=resize,
            cache=cache,
            **options,
        )
        for folders in found.values()
    ]
    names = {label: printable(name) for name, label in labels.items()}
    class_names = tuple(names.get(label, str(label)) for label in range(num_classes))
    provenance = {
        "size": size,
        "resize": splits[0].resize,
        "files": "of many sizes" if own is None else f"{own[0]} x {own[1]}",
        "present_classes": len(found["train"]),
        "labels": FOLDER_ORDER if classes is None else "class list",
    }
    return Source(splits[0], splits[1], class_names, provenance)


def cifar10(
    folder: str, *, mean: Numbers = RGB_MEAN, std: Numbers = RGB_STD, download: bool = False
) -> Source:
    """CIFAR-10 from the archive that torchvision uses (`cifar-10-batches-py` in the folder)."""
    return _cifar("CIFAR10", folder, mean, std, download)


def cifar100(
    folder: str, *, mean: Numbers = RGB_MEAN, std: Numbers = RGB_STD, download: bool = False
) -> Source:
    """CIFAR-100 from the archive that torchvision uses (`cifar-100-python` in the folder)."""
    return _cifar("CIFAR100", folder, mean, std, download)


SOURCES: dict[str, Callable[..., Source]] = {
    "digits": digits,
    "npz": npz,
    "imagefolder": imagefolder,
    "cifar10": cifar10,
    "cifar100": cifar100,
}


def _cifar(kind: str, folder: str, mean: Numbers, std: Numbers, download: bool) -> Source:
    root = Path(folder).expanduser() if download and folder else _folder(folder, kind.lower())
    dataset = getattr(torchvision().datasets, kind)
    try:
        # torchvision unpickles the archive's files only where their checksums are the known ones.
        parts = [dataset(root, train=train, download=download) for train in (True, False)]
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{kind} cannot be read from {root}: {error} Put the extracted folder "
            f"{dataset.base_folder!r} there, or pass download=True."
        ) from error
    train, test = (
        TensorSplit(
            torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(),
            torch.tensor(part.targets, dtype=torch.int64),
            tuple(mean),
            tuple(std),
            len(part.classes),
        )
        for part in parts
    )
    return Source(train, test, tuple(parts[0].classes))


def _folder(folder: str, kind: str) -> Path:
    if not folder:
        raise InvalidInputError(f"The source {kind!r} needs a folder: '{kind}:DIR'.")
    root = Path(folder).expanduser()
    if "\0" in folder or not root.is_dir():
        raise DataError(f"The data folder {str(root)!r} does not exist or is not a folder.")
    return root


def _read_npz(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any], tuple[str, ...]]:
    """Images (N, H, W, C), labels (N,) and class names (or none) of one checked file."""
    if not path.is_file():
        raise DataError(f"The file {path} does not exist.")
    try:
        _check_claims(path)
        # allow_pickle stays off: an array file must not be able to run code.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except DataError:
        raise
    except Exception as error:  # numpy and zipfile report damage by many kinds
        raise DataError(
            f"The file {path} cannot be read: {error}. It may be truncated; fetch it again."
        ) from error
    missing = {"images", "labels"} - arrays.keys()
    if missing:
        raise DataError(f"The file {path} lacks {sorted(missing)}; it holds {sorted(arrays)}.")
    images, labels = arrays["images"], arrays["labels"]
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
        raise DataError(
            f"'images' in {path} must be uint8 of shape (N, H, W, C), not empty. "
            f"Got {images.dtype} of shape {images.shape} instead."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"'labels' in {path} must be {len(images)} integers, one per image. "
            f"Got {labels.dtype} of shape {labels.shape} instead."
        )
    classes = arrays.get("classes", np.zeros(0, dtype=str))
    if classes.ndim != 1 or classes.dtype.kind not in "USiu":
        raise DataError(
            f"'classes' in {path} must be a list of names in label order. "
            f"Got {classes.dtype} of shape {classes.shape} instead."
        )
    names = tuple(map(str, classes))
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (names and high >= len(names)):
        raise DataError(
            f"'labels' in {path} must lie in 0..{len(names) - 1 if names else 'C-1'}. "
            f"Got {low}..{high} instead."
        )
    return images, labels, names


def _check_claims(path: Path) -> None:
    """Raise where an array claims more than its file holds, or all of them more than fits here."""
    total, limit = 0, memory_bytes()
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            total += entry.file_size
            if not entry.filename.endswith(".npy"):
                continue
            with archive.open(entry) as member:
                version = np.lib.format.read_magic(member)
                read = _NPY_HEADERS.get(version)
                if read is None:
                    raise DataError(
                        f"{entry.filename} in {path} has the unknown version {version}."
                    )
                shape, _, dtype = read(member)
            claimed = math.prod(shape) * dtype.itemsize
            if claimed > entry.file_size and not dtype.hasobject:
                raise DataError(
                    f"{entry.filename} in {path} claims {claimed:,} bytes (shape {shape}), the "
                    f"file holds {entry.file_size:,}. It is damaged; fetch it again."
                )
    if limit is not None and total > limit:
        raise DataError(
            f"The arrays in {path} take {total / 2**30:,.1f} GiB, this machine has "
            f"{limit / 2**30:,.1f}. Use an image folder, which is decoded when needed."
        )


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class folder, both sorted by name."""
    if not folder.is_dir():
        raise DataError(
            f"The folder {folder} does not exist. Expected {folder.parent}/train/CLASS/* and "
            f"{folder.parent}/val/CLASS/* (or test/CLASS/*)."
        )
    folders = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    files = {path.name: list_images(path) for path in folders}
    if not files:
        raise DataError(f"The folder {folder} has no class folders.")
    empty = [name for name, paths in files.items() if not paths]
    if empty:
        raise DataError(
            f"{len(empty)} class folders of {folder} hold no image files: {empty[:5]}. "
            "Remove them or fill them."
        )
    return files


def _class_labels(path: Path) -> dict[str, int]:
    """Folder name -> label from a JSON list of names or a JSON mapping."""
    try:
        document = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"The class list {path} cannot be read: {error}.") from error
    if isinstance(document, list):
        document = {name: index for index, name in enumerate(document)}
    if (
        not isinstance(document, dict)
        or not document
        or not all(type(label) is int and label >= 0 for label in document.values())
        or len(set(document.values())) != len(document)
    ):
        raise DataError(
            f"The class list {path} must be a JSON list of folder names in label order, or a "
            "mapping of folder names to distinct labels from 0."
        )
    return document
