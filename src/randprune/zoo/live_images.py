"""Labelled images of a torch `Dataset`, read anew in each pass; only their labels are held."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from randprune.errors import DataError
from randprune.zoo.dataset import count_classes
from randprune.zoo.live import LiveSplit, drawing
from randprune.zoo.splits import (
    Batch,
    ImageShape,
    Indices,
    TensorSplit,
    check_indices,
    check_labels,
    check_normalisation,
)

_LABELS = ("targets", "labels")
_BYTE = 255.0


@dataclass(frozen=True, eq=False)
class LiveImages:
    """A split whose images a data set makes when they are asked for; augmentation is its own.

    Attributes:
        live: the samples, (image, class index) pairs.
        targets: int64 (N,), of the samples in order.
        image_shape: (C, H, W) of every image.
        mean, std: one number a channel, for pixels in [0, 1].
        num_classes: labels are 0..num_classes-1.
    """

    live: LiveSplit
    targets: Tensor
    image_shape: ImageShape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int

    def __post_init__(self) -> None:
        check_labels(self.targets, len(self.live), self.num_classes)
        check_normalisation(self.mean, self.std, self.image_shape[0])

    def __len__(self) -> int:
        return len(self.live)

    @property
    def labels(self) -> Tensor:
        """The targets, int64 (N,)."""
        return self.targets

    @cached_property
    def fingerprint(self) -> str:
        """Hash of some images, of all labels, and of the normalisation."""
        head = (self.live.fingerprint, self.num_classes, self.mean, self.std)
        digest = hashlib.sha256(repr(head).encode())
        digest.update(self.targets.numpy().astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    def subset(self, indices: Indices) -> LiveImages:
        """The images at the given places, in the given order."""
        index = check_indices(indices, len(self))
        return replace(self, live=self.live.subset(index), targets=self.targets[index])

    @property
    def bytes_of_all(self) -> int:
        """What all images take, float32."""
        return 4 * len(self) * math.prod(self.image_shape)

    def in_memory(self) -> TensorSplit:
        """The images of one pass in the stored order, without augmentation of any kind."""
        parts = [images for images, _ in self.batches(256)]
        channels = self.image_shape[0]
        none = (0.0,) * channels, (1.0,) * channels
        return TensorSplit(torch.cat(parts), self.targets, *none, self.num_classes, False, 0)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: torch.Generator | None = None,
        augment: bool = False,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """One pass; see `Split.batches` and `LiveSplit.batches`."""
        passes = self.live.batches(
            batch_size, shuffle=shuffle, augment=augment, drop_last=drop_last
        )
        mean, std = (torch.tensor(x).view(1, -1, 1, 1) for x in (self.mean, self.std))
        for images, labels in passes:
            scaled = images.float() / _BYTE if images.dtype == torch.uint8 else images.float()
            yield (scaled - mean) / std, labels


def live_images(dataset: Any, part: str) -> tuple[LiveSplit, Tensor, ImageShape]:
    """The samples of a data set of (image, class index) pairs, their labels, and (C, H, W).

    Labels are its `targets` or `labels`, where it has as many; else it is read once for them.

    Raises:
        DataError: it is empty, a sample is no such pair, or images differ in shape.
    """
    count = len(dataset)
    if not count:
        raise DataError(f"The {part} Dataset is empty.")
    live = LiveSplit(dataset, _collate, torch.arange(count), f"{part} Dataset")
    with drawing(0, 0):
        first = _pair(dataset[0], 0, part, None)[0]
        given = (_numbers(getattr(dataset, name, None), count) for name in _LABELS)
        known = next((labels for labels in given if labels is not None), None)
        if known is None:
            known = [_pair(dataset[i], i, part, first.shape)[1] for i in range(count)]
    channels, height, width = first.shape
    return live, torch.tensor(known, dtype=torch.int64), (channels, height, width)


def stacked(samples: list[Any], part: str) -> tuple[Tensor, Tensor]:
    """Images and labels of samples at hand.

    Raises:
        DataError: there are none, a sample is no pair, or images differ in shape.
    """
    if not samples:
        raise DataError(f"The {part} Dataset is empty.")
    first = _pair(samples[0], 0, part, None)[0]
    pairs = [_pair(sample, place, part, first.shape) for place, sample in enumerate(samples)]
    labels = torch.tensor([label for _, label in pairs], dtype=torch.int64)
    return torch.stack([image for image, _ in pairs]), labels


def _numbers(labels: Any, count: int) -> list[int] | None:
    """Class indices that a data set holds, None where it holds none."""
    try:
        found = [int(label) for label in labels]
    except (TypeError, ValueError, RuntimeError):
        return None
    return found if len(found) == count else None


def _pair(sample: Any, place: int, part: str, shape: torch.Size | None) -> tuple[Tensor, int]:
    """The image and the class index of a sample.

    Raises:
        DataError: it has none, or an image of another shape.
    """
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        raise DataError(
            f"Sample {place} of the {part} Dataset must be (image, label). "
            f"Got {type(sample).__name__} instead."
        )
    image = _image(sample[0])
    if image.ndim != 3 or (shape is not None and image.shape != shape):
        wanted = "(C, H, W)" if shape is None else tuple(shape)
        raise DataError(
            f"Image {place} of the {part} Dataset has shape {tuple(image.shape)}, not {wanted}. "
            "Resize the images in the Dataset's transform."
        )
    label = int(sample[1])
    count_classes(label, f"sample {place} of the {part} Dataset")
    return image, label


def _image(value: Any) -> Tensor:
    """A picture, an array or a tensor as (C, H, W)."""
    if isinstance(value, Tensor):
        return value[None] if value.ndim == 2 else value
    pixels = torch.from_numpy(np.array(value))
    if pixels.ndim == 2:
        return pixels[None]
    last = pixels.ndim == 3 and pixels.shape[0] not in (1, 3) and pixels.shape[2] in (1, 3)
    return pixels.movedim(2, 0) if last else pixels


def _collate(samples: list[Any]) -> Batch:
    images = torch.stack([_image(image) for image, _ in samples])
    return images, torch.tensor([int(label) for _, label in samples], dtype=torch.int64)
