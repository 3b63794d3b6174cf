"""Labelled images for pruning: what users have, or a named source, as a `Data`.

data = load_data("npz:DIR")            # or "digits", "imagefolder:DIR", "cifar10:DIR", ...
data = as_data({"train": (images, labels), "test": (images, labels)})
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from randprune.errors import DataError, InvalidInputError
from randprune.graph.trees import check_plain
from randprune.zoo import task_sources
from randprune.zoo.dataset import Data, count_classes, holdout, make_data, printable
from randprune.zoo.folder import FolderSplit, ImageCache
from randprune.zoo.given import as_any_data, has_classes
from randprune.zoo.live import LiveSplit
from randprune.zoo.live_images import LiveImages, live_images, stacked
from randprune.zoo.sources import SOURCES
from randprune.zoo.splits import Batch, ImageShape, Samples, Split, TensorSplit, is_split

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

# What is passed over many times is held up to this.
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
        spec: "digits", "npz:DIR", "imagefolder:DIR", "cifar10:DIR" or "cifar100:DIR"; for other
            tasks "segmentation:DIR", "csv:FILE" or "package.module:callable", which returns what
            `as_data` or `as_any_data` takes.
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
    if kind in TASK_SOURCES or (kind not in SOURCES and _names_a_function(kind, folder)):
        return _task_data(spec, calibration, search, seed, options)
    if kind not in SOURCES:
        close = difflib.get_close_matches(kind, SOURCES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        if Path(spec).is_dir():
            hint = f" The folder {spec!r} is there: name how it is read, as in imagefolder:{spec}."
        raise InvalidInputError(
            f"Unknown data source {spec!r}; the sources are digits, npz:DIR, imagefolder:DIR, "
            "cifar10:DIR, cifar100:DIR, segmentation:DIR, csv:FILE and package.module:callable."
            f"{hint}"
        )
    _check_options(kind, SOURCES[kind], options)
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


TASK_SOURCES: dict[str, Callable[..., tuple[Samples, Samples]]] = {
    "segmentation": task_sources.segmentation,
    "csv": task_sources.table,
}
"""Sources of other data than labelled images."""


def _names_a_function(module: str, name: str) -> bool:
    """Whether a source is package.module:callable, of which one part has a dot or is here."""
    parts = [*module.split("."), name]
    known = "." in module or importlib.util.find_spec(module) is not None
    return all(part.isidentifier() for part in parts) and known


def _check_options(kind: str, source: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse options that a source does not have."""
    known = [
        name
        for name, parameter in inspect.signature(source).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    if unknown := sorted(options.keys() - set(known)):
        raise InvalidInputError(
            f"The source {kind!r} has no option {unknown[0]!r}; it has {', '.join(known)}."
        )


def _task_data(
    spec: str, calibration: int | None, search: int | None, seed: int, options: Mapping[str, Any]
) -> Data:
    """The data of a source of another task, or of a function."""
    kind, _, folder = spec.partition(":")
    sizes: dict[str, Any] = {"calibration": calibration, "search": search, "seed": seed}
    if kind not in TASK_SOURCES:
        given = task_sources.function(spec, **options)
        images = has_classes(given, indices=True)
        data = as_data(given, **sizes) if images else as_any_data(given, **sizes)
        return replace(data, name=spec)
    _check_options(kind, TASK_SOURCES[kind], options)
    train, test = TASK_SOURCES[kind](folder, **options)
    name = f"{kind}:{printable(Path(folder).resolve().name)}"
    return make_data(name, train, test, sizes=(calibration, search), seed=seed)


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
    if given. A torch `Dataset` is read anew in each pass, so that its random transforms stay random
    and it may be larger than memory; images are not augmented besides.

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
    """`split` as tensors where it lies in files or is made anew and fits, else `split` itself.

    For whoever passes over the same samples many times without augmentation.
    """
    if isinstance(split, LiveImages | LiveSplit):
        return split.in_memory() if split.bytes_of_all <= limit_bytes else split
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
    elif isinstance(obj, IterableDataset):
        images, labels = stacked(list(obj), part)
        images = _as_images(images, part)
    elif isinstance(obj, Dataset):
        live, labels, shape = live_images(obj, part)
        scale = _normalisation(normalisation, shape[0])
        return LiveImages(live, labels, shape, *scale, _classes(labels, num_classes, part))
    elif is_split(obj):
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
    num_classes = _classes(labels, num_classes, part)
    mean, std = _normalisation(normalisation, images.shape[1])
    pad = min(images.shape[2:]) // 8
    try:
        return TensorSplit(images, labels, mean, std, num_classes, pad=pad)
    except DataError as error:
        raise DataError(f"The {part} data cannot be used. {error}") from None


def _classes(labels: Tensor, num_classes: int | None, part: str) -> int:
    """How many classes there are: as told, or as many as occur without a gap."""
    if num_classes is not None:
        return num_classes
    highest = int(labels.max()) if len(labels) else -1
    found = count_classes(highest, f"the {part} data")
    present = torch.bincount(labels.clamp(min=0), minlength=found) > 0
    absent = [] if bool(present.all()) else (~present).nonzero()[:, 0].tolist()
    if absent:
        raise DataError(
            f"The {part} labels reach {found - 1}, but {len(absent)} lower classes have no image, "
            f"the first is {absent[0]}. Labels count from 0; if this is meant, pass num_classes."
        )
    return found


def _normalisation(
    given: tuple[Sequence[float] | None, Sequence[float] | None], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, one number a channel; 0 and 1 where none are given."""
    mean, std = given
    return (
        (0.0,) * channels if mean is None else tuple(mean),
        (1.0,) * channels if std is None else tuple(std),
    )


def _as_images(obj: Any, part: str) -> Tensor:
    """Images as uint8 or float32 (N, C, H, W), contiguous."""
    images = obj.detach() if isinstance(obj, Tensor) else torch.tensor(obj)
    check_plain(images, f"{part} images")
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
            f"The {part} labels must be integers of shape (N,), one class index per image. "
            f"Got {labels.dtype} of shape {tuple(labels.shape)} instead."
        )
    if labels.dtype == torch.uint64 and labels.numel():
        count_classes(int(labels.numpy().max()), f"the {part} data")
    return labels.to(torch.int64)
