"""Named sources of other data than labelled images: label maps, tables of targets, a function.

Images are read when a pass needs them, brought to one size, scaled to [0, 1] and normalised.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from randprune.errors import DataError, InvalidInputError
from randprune.imports import import_named
from randprune.zoo.dataset import holdout
from randprune.zoo.folder import decode, list_images
from randprune.zoo.given import as_samples
from randprune.zoo.splits import Samples

RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TEST = ("test", "val")
_HELD_OUT = 0.2
_BYTE = 255.0


@dataclass(frozen=True, slots=True, eq=False)
class ImagesWithTargets:
    """Image files, each with a label map in a file or with numbers.

    Attributes:
        files: of the images.
        targets: files of label maps, or float32 (N,) or (N, K).
        size: height and width that images and maps are brought to; None: as they are.
        mean, std: one number a channel, for pixels in [0, 1].
    """

    files: Sequence[Path]
    targets: Sequence[Path] | Tensor
    size: tuple[int, int] | None
    mean: Sequence[float] = RGB_MEAN
    std: Sequence[float] = RGB_STD

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        """(image float32 (3, H, W), target): a label map int64 (H, W), or numbers."""
        image = Image.fromarray(decode(self.files[place]))
        if self.size is not None:
            image = image.resize(self.size[::-1], Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).movedim(2, 0).float() / _BYTE
        mean, std = (torch.tensor(tuple(x)).view(3, 1, 1) for x in (self.mean, self.std))
        return (pixels - mean) / std, self._target(place)

    def _target(self, place: int) -> Tensor:
        if isinstance(self.targets, Tensor):
            return self.targets[place]
        path = self.targets[place]
        try:
            with Image.open(path) as file:
                labels = file if self.size is None else file.resize(self.size[::-1], 0)
                found = np.array(labels)
        except (OSError, ValueError) as error:
            raise DataError(f"The label map {path} cannot be read: {error}.") from error
        if found.ndim != 2:
            raise DataError(
                f"The label map {path} has {found.ndim} axes. Give one class index a pixel, as a "
                "grey or a palette image."
            )
        return torch.from_numpy(found.astype(np.int64))


def segmentation(
    folder: str,
    *,
    size: int | Sequence[int] | None = None,
    mean: Sequence[float] = RGB_MEAN,
    std: Sequence[float] = RGB_STD,
) -> tuple[Samples, Samples]:
    """Training and test images with label maps: DIR/train/* with DIR/trainannot/*, likewise test.

    A map has the name of its image, with any suffix; pixels are class indices. `val` stands in
    where there is no `test`. `size`: one number, or height and width.

    Raises:
        DataError: folders or maps are missing.
    """
    root = Path(folder).expanduser()
    test = next((name for name in _TEST if (root / name).is_dir()), _TEST[0])
    given = (size, size) if isinstance(size, int) else size
    sizes = None if given is None else (int(given[0]), int(given[1]))
    parts = []
    for name in ("train", test):
        images, maps = root / name, root / f"{name}annot"
        for needed in (images, maps):
            if not needed.is_dir():
                raise DataError(
                    f"The folder {needed} does not exist. Expected {root}/train/* with "
                    f"{root}/trainannot/*, and {root}/test/* with {root}/testannot/*."
                )
        files = list_images(images)
        found = {path.stem: path for path in list_images(maps)}
        missing = [path.name for path in files if path.stem not in found]
        if missing or not files:
            raise DataError(
                f"{len(missing)} of {len(files)} images in {images} have no label map in {maps}"
                + (f", the first is {missing[0]}." if missing else ".")
            )
        targets = [found[path.stem] for path in files]
        parts.append(as_samples(ImagesWithTargets(files, targets, sizes, mean, std), name))
    return parts[0], parts[1]


def table(
    file: str,
    *,
    size: int | Sequence[int] | None = None,
    mean: Sequence[float] = RGB_MEAN,
    std: Sequence[float] = RGB_STD,
    seed: int = 0,
) -> tuple[Samples, Samples]:
    """Training and test images with numbers: lines of a path and one or more targets.

    Paths are from the file's folder. A first line without numbers is a heading. A fifth, drawn by
    the seed, is the test set.

    Raises:
        DataError: the file is missing, empty, or a line has no number where one belongs.
    """
    path = Path(file).expanduser()
    try:
        lines = [line for line in csv.reader(path.read_text(encoding="utf-8").splitlines()) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"The table {path} cannot be read: {error}.") from error
    if lines and _numbers(lines[0][1:]) is None:
        lines = lines[1:]
    rows = [_numbers(line[1:]) for line in lines]
    for number, row in enumerate(rows):
        if row is None or not row or len(row) != len(rows[0] or []):
            raise DataError(
                f"Line {number + 1} of the values in {path} is {','.join(lines[number])!r}: give a "
                "path and as many numbers in each line."
            )
    if not rows:
        raise DataError(f"The table {path} has no lines.")
    targets = torch.tensor(rows, dtype=torch.float32)
    files = [path.parent / line[0] for line in lines]
    given = (size, size) if isinstance(size, int) else size
    sizes = None if given is None else (int(given[0]), int(given[1]))
    every = as_samples(ImagesWithTargets(files, targets, sizes, mean, std), path.name)
    kept, held = holdout(torch.zeros(len(files), dtype=torch.int64), _HELD_OUT, seed)
    return every.subset(kept), every.subset(held)


def function(spec: str, **options: Any) -> Any:
    """What a function returns: `package.module:callable`, called with the options.

    Raises:
        InvalidInputError: there is no such module or function, or it fails.
    """
    module, _, name = spec.partition(":")
    try:
        found = getattr(import_named(module), name)
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(
            f"The data source {spec!r} cannot be imported: {error}. Give package.module:callable."
        ) from error
    try:
        return found(**options)
    except TypeError as error:
        raise InvalidInputError(f"The data source {spec!r} rejects {options}: {error}") from error


def _numbers(cells: Sequence[str]) -> list[float] | None:
    """The cells as finite numbers, None where one of them is none."""
    try:
        found = [float(cell) for cell in cells]
    except ValueError:
        return None
    return found if np.isfinite(found).all() else None
