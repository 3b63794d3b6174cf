"""Labelled images for pruning: what users have, or a named source, as a `Data`.

data = load_data("npz:DIR")            # or "digits", "imagefolder:DIR", "cifar10:DIR", ...
data = as_data({"train": (images, labels), "test": (images, labels)})
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from randprune.errors import DataError, InvalidInputError
from randprune.zoo.dataset import Data, count_classes, holdout, make_data, printable
from randprune.zoo.folder import FolderSplit, ImageCache
from randprune.zoo.sources import SOURCES
from randprune.zoo.splits import Batch, ImageShape, Samples, Split, TensorSplit

__all__ = [
    "Batch",
    "Data",
    "FolderSplit",
    "ImageCache",
    "ImageShape",
    "Split",
    "TensorSplit",
    "as_data",
    "in_memory",
    "load_data",
    "make_data",
]

# A torch Dataset is read into memory, up to this; image folders have no limit.
MEMORY_BYTES = 4 << 30
_HELD_OUT = 0.2


def load_data(
    spec: str,
    *,
    calibration: int | None = None,
    search: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Data:
    """The data set that `spec` names, its training images divided by `seed`.

    Args:
        spec: "digits", "npz:DIR", "imagefolder:DIR", "cifar10:DIR" or "cifar100:DIR".
        calibration: images for calibration; default 10 %, at most 2,000.
        search: images that rank candidates; default 20 %, at most 5,000.
        seed: draws the parts.
        options: of the source, see `randprune.zoo.sources`; all take `mean` and `std`, the
            normalisation for pixels in [0, 1].

    Raises:
        InvalidInputError: an unknown source or option.
        DataError: missing, empty, mislabelled or damaged files.
    """
    kind, _, folder = spec.partition(":")
    if kind not in SOURCES:
        close = difflib.get_close_matches(kind, SOURCES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InvalidInputError(
            f"Unknown data source {spec!r}; the sources are digits, npz:DIR, imagefolder:DIR, "
            f"cifar10:DIR and cifar100:DIR.{hint}"
        )
    known = [
        name
        for name, parameter in inspect.signature(SOURCES[kind]).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise InvalidInputError(
            f"The source {kind!r} has no option {unknown[0]!r}; it has {', '.join(known)}."
        )
    source = SOURCES[kind](folder, **options)
    # The folder's own name, not where it lies: records must not depend on the machine.
    return make_data(
        f"{kind}:{printable(Path(folder).resolve().name)}" if folder else kind,
        source.train,
        source.test,
        source.class_names,
        sizes=(calibration, search),
        seed=seed,
        provenance=source.provenance,
    )


def as_data(
    obj: Any,
    *,
    num_classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    calibration: int | None = None,
    search: int | None = None,
    seed: int = 0,
) -> Data:
    """`obj` as a `Data`: itself (as it is), a source's name, or images and labels like these.

    - {"train": X, "test": X} or (train, test), where X is a pair (images, labels) of tensors or
      arrays, a torch `Dataset` or `DataLoader` of such samples, or a `Split`;
    - a single X: a fifth of it, class-balanced and seeded, becomes the test set.

    Images are (N, C, H, W), or (N, H, W, C) and (N, H, W) where that is unambiguous; uint8 images
    are divided by 255, float images are taken as they are, and then normalised by `mean` and `std`
    if given. A torch `Dataset` is read into memory once, in order, so it should not augment.

    Args:
        obj: what to adapt.
        num_classes: default: the highest training label + 1; then every class must occur.
        mean, std: one number a channel; default 0 and 1.
        calibration, search, seed: as in `load_data`.

    Raises:
        DataError: empty, not finite, mismatched or mislabelled content.
        InvalidInputError: an object of another kind.
    """
    if isinstance(obj, str):
        options = {"mean": mean, "std": std}
        given = {name: value for name, value in options.items() if value is not None}
        obj = load_data(obj, calibration=calibration, search=search, seed=seed, **given)
    if isinstance(obj, Data):
        if num_classes not in (None, obj.num_classes):
            raise DataError(f"{obj.name} has {obj.num_classes} classes, not {num_classes}.")
        return obj
    given_train, given_test = _train_and_test(obj)
    normalisation = (mean, std)
    train = _as_split(given_train, "training", num_classes, normalisation)
    provenance: dict[str, Any] = {}
    if given_test is None:
        kept, held = holdout(train.labels, _HELD_OUT, seed)
        train, test = train.subset(kept), train.subset(held)
        provenance["test_set"] = f"{_HELD_OUT:.0%} of the given images, drawn by the seed"
    else:
        test = _as_split(given_test, "test", train.num_classes, normalisation)
    return make_data(
        "given", train, test, sizes=(calibration, search), seed=seed, provenance=provenance
    )


def in_memory(split: Samples, limit_bytes: int = MEMORY_BYTES) -> Samples:
    """`split` decoded into one uint8 tensor where it lies in files and fits, else `split` itself.

    For whoever passes over the same images many times without augmentation.
    """
    if isinstance(split, FolderSplit) and len(split) * 3 * split.size**2 <= limit_bytes:
        return split.in_memory()
    return split


def _train_and_test(obj: Any) -> tuple[Any, Any | None]:
    """The training part of `obj` and its test part, None where it has none."""
    if isinstance(obj, Mapping):
        unknown = set(obj) - {"train", "test", "val"}
        if "train" not in obj or unknown or {"test", "val"} <= set(obj):
            raise InvalidInputError(
                "A mapping given as data must have the keys 'train' and 'test'. "
                f"Got {sorted(map(str, obj))} instead."
            )
        return obj["train"], obj.get("test", obj.get("val"))
    if isinstance(obj, tuple | list) and len(obj) == 2 and not _is_pair(obj):
        return obj[0], obj[1]
    return obj, None


def _is_array(obj: Any) -> bool:
    return isinstance(obj, Tensor | np.ndarray)


def _is_pair(obj: Any) -> bool:
    """Whether `obj` is (images, labels) rather than (train, test)."""
    return isinstance(obj, tuple | list) and len(obj) == 2 and all(map(_is_array, obj))


def _as_split(
    obj: Any,
    part: str,
    num_classes: int | None,
    normalisation: tuple[Sequence[float] | None, Sequence[float] | None],
) -> Split:
    """One part as a split; `part` names it in messages."""
    if isinstance(obj, DataLoader):
        # A loader's own order may be random; its dataset's is not.
        obj = obj.dataset
    if _is_pair(obj):
        images, labels = _as_images(obj[0], part), _as_labels(obj[1], part)
    elif isinstance(obj, TensorDataset) and len(obj.tensors) == 2:
        images, labels = _as_images(obj.tensors[0], part), _as_labels(obj.tensors[1], part)
    elif isinstance(obj, Dataset):
        images, labels = _read_dataset(obj, part)
    elif isinstance(obj, Split):
        if num_classes not in (None, obj.num_classes):
            raise DataError(f"The {part} data has {obj.num_classes} classes, not {num_classes}.")
        return obj
    else:
        raise InvalidInputError(
            f"The {part} data must be a pair (images, labels) of tensors or arrays, a torch "
            f"Dataset or DataLoader, or a Split. Got {type(obj).__name__} instead."
        )
    if len(images) != len(labels):
        raise DataError(f"The {part} data has {len(images)} images but {len(labels)} labels.")
    if num_classes is None:
        highest = int(labels.max()) if len(labels) else -1
        num_classes = count_classes(highest, f"the {part} data")
        present = torch.bincount(labels.clamp(min=0), minlength=num_classes) > 0
        absent = [] if bool(present.all()) else (~present).nonzero()[:, 0].tolist()
        if absent:
            raise DataError(
                f"The {part} labels reach {num_classes - 1}, but {len(absent)} lower classes have "
                f"no image, the first is {absent[0]}. Labels count from 0; if this is meant, pass "
                "num_classes."
            )
    channels = images.shape[1]
    mean, std = normalisation
    try:
        return TensorSplit(
            images,
            labels,
            tuple(mean) if mean is not None else (0.0,) * channels,
            tuple(std) if std is not None else (1.0,) * channels,
            num_classes,
            pad=min(images.shape[2:]) // 8,
        )
    except DataError as error:
        raise DataError(f"The {part} data cannot be used. {error}") from None


def _as_images(obj: Any, part: str) -> Tensor:
    """Images as uint8 or float32 (N, C, H, W), contiguous."""
    images = obj.detach() if isinstance(obj, Tensor) else torch.tensor(obj)
    if images.ndim == 3:
        images = images[:, None]
    channels = (1, 3)
    if images.ndim == 4 and images.shape[1] not in channels and images.shape[3] in channels:
        images = images.permute(0, 3, 1, 2)
    if images.ndim != 4 or images.numel() == 0:
        raise DataError(
            f"The {part} images must have shape (N, C, H, W) and not be empty. "
            f"Got {tuple(images.shape)} instead."
        )
    if images.dtype.is_floating_point:
        images = images.to(torch.float32)
    return images.contiguous()


def _as_labels(obj: Any, part: str) -> Tensor:
    """Labels as int64 (N,)."""
    labels = obj.detach() if isinstance(obj, Tensor) else torch.as_tensor(obj)
    plain = not labels.is_floating_point() and not labels.is_complex()
    if labels.ndim != 1 or not plain or labels.dtype == torch.bool:
        raise DataError(
            f"The {part} labels must be integers of shape (N,), one class index an image. "
            f"Got {labels.dtype} of shape {tuple(labels.shape)} instead."
        )
    if labels.dtype == torch.uint64 and labels.numel():
        count_classes(int(labels.numpy().max()), f"the {part} data")
    return labels.to(torch.int64)


def _class_index(label: Any, where: str) -> int:
    """A label of a sample as an integer, or a `DataError` where it is none."""
    index = int(label)
    count_classes(index, where)
    return index


def _read_dataset(dataset: Any, part: str) -> tuple[Tensor, Tensor]:
    """All samples of a torch Dataset, in order, as images and labels."""
    samples: Iterable[Any] = dataset
    if not isinstance(dataset, IterableDataset):
        samples = (dataset[position] for position in range(len(dataset)))
    images: list[Tensor] = []
    labels: list[int] = []
    held_bytes = 0
    for position, sample in enumerate(samples):
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise DataError(
                f"Sample {position} of the {part} Dataset must be (image, label). "
                f"Got {type(sample).__name__} instead."
            )
        image, label = sample
        if not isinstance(image, Tensor):
            image = torch.from_numpy(np.array(image))
        image = image[None] if image.ndim == 2 else image
        if image.ndim != 3 or (images and image.shape != images[0].shape):
            wanted = tuple(images[0].shape) if images else "(C, H, W)"
            raise DataError(
                f"Image {position} of the {part} Dataset has shape {tuple(image.shape)}, not "
                f"{wanted}. Resize the images in the Dataset's transform."
            )
        held_bytes += image.nbytes
        if held_bytes > MEMORY_BYTES:
            raise DataError(
                f"The {part} Dataset does not fit into {MEMORY_BYTES / 2**30:.3g} GiB. "
                "Use load_data('imagefolder:DIR'), which decodes files when needed."
            )
        images.append(image)
        labels.append(_class_index(label, f"sample {position} of the {part} Dataset"))
    if not images:
        raise DataError(f"The {part} Dataset is empty.")
    return _as_images(torch.stack(images), part), torch.tensor(labels, dtype=torch.int64)
