"""Data as people have it, of any structure, as samples: tensors, Datasets, loaders, batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from randprune.errors import DataError, InvalidInputError
from randprune.graph.trees import check_plain, joined, map_tensors, named_leaves, shown
from randprune.zoo.dataset import (
    CALIBRATION_LIMIT,
    SEARCH_LIMIT,
    Data,
    check_sizes,
    holdout,
    make_data,
)
from randprune.zoo.live import HeldSplit, LiveSplit
from randprune.zoo.splits import Samples, is_samples, is_split

_HELD_OUT = 0.2
_BYTE = 255.0


def as_samples(obj: Any, part: str = "data") -> Samples:
    """`obj` as samples, whatever their structure.

    - a tensor or array, or a structure of them: one sample for each entry of the first axis;
    - a pair (inputs, targets) of them;
    - a torch `Dataset` (or anything with a length and positions) or `DataLoader`, read anew in each
      pass; a loader's `collate_fn` is used, its order and batch size are not;
    - an iterable of batches, or an `IterableDataset`, which is read once, into memory.

    uint8 images are divided by 255; all else is taken as it is.

    Raises:
        DataError: it is empty, or batches do not fit together.
        InvalidInputError: an object of another kind.
    """
    if is_samples(obj):
        return obj
    if isinstance(obj, DataLoader):
        if isinstance(obj.dataset, IterableDataset):
            return _joined(obj, part)
        collate = obj.collate_fn if obj.batch_size is not None else default_collate
        return _live(obj.dataset, collate, part)
    if isinstance(obj, TensorDataset):
        held = obj.tensors if len(obj.tensors) > 1 else obj.tensors[0]
        return HeldSplit(map_tensors(_image, held))
    if isinstance(obj, IterableDataset):
        return _joined([default_collate(list(map(_arrays, obj)))], part)
    if isinstance(obj, Tensor | np.ndarray):
        return HeldSplit(_arrays(obj))
    if isinstance(obj, Mapping) and obj and all(map(_is_array, obj.values())):
        return HeldSplit(_arrays(obj))
    if isinstance(obj, tuple) and obj and all(map(_is_array, obj)):
        return HeldSplit(_arrays(obj))
    positions = hasattr(obj, "__getitem__") and hasattr(obj, "__len__")
    if isinstance(obj, Dataset) or (
        positions and not isinstance(obj, tuple | list | Mapping | str | bytes)
    ):
        return _live(obj, default_collate, part)
    if isinstance(obj, Iterable) and not isinstance(obj, str | bytes | Mapping):
        return _joined(obj, part)
    raise InvalidInputError(
        f"The {part} must be a tensor, a pair (inputs, targets), a torch Dataset or DataLoader, or "
        f"an iterable of batches. Got {type(obj).__name__} instead."
    )


def as_any_data(
    obj: Any,
    *,
    calibration: int | None = None,
    search: int | None = None,
    seed: int = 0,
    parts: tuple[str, ...] = ("fit", "test"),
) -> Data:
    """`obj` as a `Data` of samples of any structure.

    Args:
        obj: a `Data`, {"train": X, "test": X}, or one X that `as_samples` takes, a fifth of which
            becomes the test set.
        calibration, search: samples for statistics and for ranking; default 10 % and 20 %.
        seed: draws the parts.
        parts: what is needed beside calibration and search: without "fit" these two share all
            samples, without "test" nothing is held out.
    """
    check_sizes(calibration=calibration, search=search)
    if isinstance(obj, Data):
        return obj
    test: Any = None
    if isinstance(obj, Mapping) and "train" in obj:
        if unknown := set(obj) - {"train", "test", "val"}:
            raise InvalidInputError(
                f"A mapping given as data has the keys 'train' and 'test'. Got {sorted(unknown)}."
            )
        obj, test = obj["train"], obj.get("test", obj.get("val"))
    train = as_samples(obj, "training data" if test is not None else "data")
    provenance: dict[str, Any] = {}
    held: Samples | None = None
    if test is not None:
        held = as_samples(test, "test data")
    elif "test" in parts:
        kept, out = holdout(torch.zeros(len(train), dtype=torch.int64), _HELD_OUT, seed)
        train, held = train.subset(kept), train.subset(out)
        provenance["test_set"] = f"{_HELD_OUT:.0%} of the given samples, drawn by the seed"
    if "fit" in parts:
        return make_data(
            "given", train, held, sizes=(calibration, search), seed=seed, provenance=provenance
        )
    count = len(train)
    first = min(calibration or CALIBRATION_LIMIT, max(1, count // 2))
    order = np.random.default_rng([seed, 0x5EED]).permutation(count).astype(np.int64)
    # A single sample is calibrated on and compared on.
    rest = order[first:] if count > 1 else order
    ranks = rest[: search or SEARCH_LIMIT]
    fit = order[first + len(ranks) :]
    return Data("given", (), train, fit, order[:first], ranks, seed, provenance, held)


def _live(dataset: Any, collate: Any, part: str) -> LiveSplit:
    try:
        count = len(dataset)
    except TypeError as error:
        raise DataError(f"The {part} does not say how many samples it has: {error}.") from error
    if not count:
        raise DataError(f"The {part} is empty.")
    if collate is default_collate:
        collate = collate_arrays
    return LiveSplit(dataset, collate, torch.arange(count), part)


def collate_arrays(samples: list[Any]) -> Any:
    """`torch.utils.data.default_collate` of samples that may hold PIL images and uint8 images."""
    return default_collate(list(map(_arrays, samples)))


def _joined(batches: Iterable[Any], part: str) -> HeldSplit:
    held = [map_tensors(_image, batch) for batch in batches]
    if not held:
        raise DataError(f"The {part} is empty: there is no batch.")
    if next(named_leaves(held[0]), None) is None:
        raise InvalidInputError(
            f"The {part} must be batches of tensors. Got {shown(held[0])} instead."
        )
    return HeldSplit(joined(held))


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _arrays(value: Any) -> Any:
    """The same with arrays and pictures as tensors; images of bytes as shares of 255."""
    if isinstance(value, Image.Image):
        pixels = torch.from_numpy(np.array(value))
        return _image(pixels[None] if pixels.ndim == 2 else pixels.movedim(2, 0))
    if isinstance(value, Tensor | np.ndarray):
        return _image(torch.as_tensor(value))
    if isinstance(value, Mapping):
        return {key: _arrays(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_arrays, value))
    if isinstance(value, tuple | list):
        return type(value)(map(_arrays, value))
    return value


def _image(value: Tensor) -> Tensor:
    """Bytes of at least three axes are pixels; float64 becomes float32.

    Raises:
        DataError: a tensor without values at hand.
    """
    check_plain(value, "data")
    if value.dtype == torch.uint8 and value.ndim >= 3:
        return value.float() / _BYTE
    return value.float() if value.dtype == torch.float64 else value


def _are_indices(labels: Any) -> bool:
    kind = np.asarray(labels).dtype.kind
    return kind in "iu" and np.ndim(labels) == 1


def has_classes(obj: Any, *, indices: bool = False) -> bool:
    """Whether data are labelled images: (image, class index) pairs, or the name of a source.

    `indices`: of a pair of arrays, whether the second must hold class indices; otherwise it is
    taken for labels, wrong ones as they may be.
    """
    if isinstance(obj, Data):
        return obj.num_classes > 0
    if isinstance(obj, str) or is_split(obj):
        return True
    if isinstance(obj, Tensor | np.ndarray) or is_samples(obj):
        return False
    if isinstance(obj, Mapping):
        return "train" in obj and has_classes(obj["train"], indices=indices)
    if isinstance(obj, DataLoader):
        return has_classes(obj.dataset, indices=indices)
    if isinstance(obj, tuple | list):
        if len(obj) != 2:
            return False
        if not all(map(_is_array, obj)):
            return has_classes(obj[0], indices=indices)
        return not indices or _are_indices(obj[1])
    if isinstance(obj, IterableDataset):
        return True
    if isinstance(obj, TensorDataset):
        return len(obj.tensors) == 2 and (not indices or _are_indices(obj.tensors[1]))
    if isinstance(obj, Dataset) and hasattr(obj, "__len__") and len(obj):
        sample = obj[0]
        pair = isinstance(sample, tuple | list) and len(sample) == 2
        return pair and (not isinstance(sample[1], Tensor | np.ndarray) or sample[1].ndim == 0)
    return True
