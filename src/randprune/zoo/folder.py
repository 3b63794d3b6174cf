"""Splits whose images stay in files and are decoded, by threads, when a pass needs them."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from randprune.errors import DataError, InvalidInputError
from randprune.zoo.splits import (
    Batch,
    ImageShape,
    Indices,
    TensorSplit,
    check_indices,
    check_labels,
    check_normalisation,
    check_pass,
)

Pixels = npt.NDArray[np.uint8]

CACHE_BYTES = 1 << 30
_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
# Formats whose images in Pillow's mode "I" have the range of 16 bits.
_SIXTEEN_BIT = ("PNG", "PPM")
# Batches that are decoded ahead of the one in use.
_AHEAD = 2


class ImageCache:
    """Decoded images by path, as many as fit into `limit_bytes`, shared by the parts of a folder.

    It holds images as stored in their files, so that a pass gives the same pixels with it and
    without it.
    """

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._images: dict[Path, Pixels] = {}
        self._lock = threading.Lock()

    def read(self, path: Path) -> Pixels:
        """The RGB image of one file, uint8 (H, W, 3), read-only by convention."""
        pixels = self._images.get(path)
        if pixels is None:
            pixels = decode(path)
            with self._lock:
                if path not in self._images and self.used_bytes + pixels.nbytes <= self.limit_bytes:
                    self._images[path] = pixels
                    self.used_bytes += pixels.nbytes
        return pixels


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """A split over image files, decoded when needed.

    Without augmentation an image of exactly `size` pixels square is taken as it is; any other is
    resized (bilinear) to a shorter side of `resize` and cropped in the centre. Augmentation: a
    random part of the image (8-100 % of the area, aspect 3/4-4/3) resized to `size`, and a
    horizontal flip with probability 1/2. Differs from torchvision's random resized crop: a part
    that would be wider or higher than the image is clamped to it, not drawn again.

    Attributes:
        root: the folder below which the files lie; not part of the fingerprint.
        files: paths relative to `root`.
        targets: int64 (N,).
        mean, std: three numbers each, for pixels in [0, 1].
        num_classes: labels are 0..num_classes-1.
        size: height and width of the images that come out.
        resize: shorter side before the centre crop; at least `size`.
        flip: whether augmentation flips.
        channels_last: batches come in `torch.channels_last` memory order.
        workers: decoding threads.
        cache: decoded images, shared by subsets.
    """

    root: Path
    files: tuple[str, ...]
    targets: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    size: int = 224
    resize: int = 256
    flip: bool = True
    channels_last: bool = False
    workers: int = min(8, os.cpu_count() or 1)
    cache: ImageCache = field(default_factory=ImageCache, repr=False)

    def __post_init__(self) -> None:
        if not self.files:
            raise DataError(f"No images below {self.root}.")
        check_labels(self.targets, len(self.files), self.num_classes)
        check_normalisation(self.mean, self.std, 3)
        if not 1 <= self.size <= self.resize or self.workers < 1:
            raise InvalidInputError(
                "A folder of images needs 1 <= size <= resize and workers >= 1. Got "
                f"size={self.size}, resize={self.resize}, workers={self.workers} instead."
            )

    def __len__(self) -> int:
        return len(self.files)

    @property
    def image_shape(self) -> ImageShape:
        """(3, size, size)."""
        return 3, self.size, self.size

    @property
    def labels(self) -> Tensor:
        """The targets, int64 (N,)."""
        return self.targets

    @cached_property
    def fingerprint(self) -> str:
        """Hash of relative paths, file sizes, labels, image size and normalisation."""
        head = (self.size, self.resize, self.num_classes, self.mean, self.std)
        digest = hashlib.sha256(repr(head).encode())
        for file, label in zip(self.files, self.targets.tolist(), strict=True):
            size_bytes = (self.root / file).stat().st_size
            # A file's name need not be UTF-8.
            digest.update(f"{file}\0{size_bytes}\0{label}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]

    def subset(self, indices: Indices) -> FolderSplit:
        """The given files, in the given order, with the same cache."""
        index = check_indices(indices, len(self))
        files = tuple(self.files[i] for i in index.tolist())
        return replace(self, files=files, targets=self.targets[index])

    def in_memory(self) -> TensorSplit:
        """The images without augmentation, decoded once, as one uint8 tensor."""
        images = np.empty((len(self), *self.image_shape), dtype=np.uint8)
        with ThreadPoolExecutor(self.workers) as pool:
            for row, pixels in enumerate(pool.map(self._plain, range(len(self)))):
                images[row] = pixels.transpose(2, 0, 1)
        return TensorSplit(
            torch.from_numpy(images),
            self.targets,
            self.mean,
            self.std,
            self.num_classes,
            flip=self.flip,
            pad=min(self.size // 8, self.size - 1),
            channels_last=self.channels_last,
        )

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: torch.Generator | None = None,
        augment: bool = False,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """One pass over the split; see `Split.batches`.

        Raises:
            DataError: while iterating, naming the file, where one cannot be decoded.
        """
        check_pass(batch_size, shuffle, augment)
        count = len(self)
        order = torch.randperm(count, generator=shuffle) if shuffle else torch.arange(count)
        draws = torch.rand((count, 5), generator=shuffle) if augment else None
        return self._run(batch_size, order, draws, drop_last)

    def _run(
        self, batch_size: int, order: Tensor, draws: Tensor | None, drop_last: bool
    ) -> Iterator[Batch]:
        stop = len(self) - len(self) % batch_size if drop_last else len(self)
        starts = deque(range(0, stop, batch_size))
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        ahead: deque[tuple[Tensor, list[Future[Pixels]]]] = deque()
        positions = order.tolist()
        try:
            while starts or ahead:
                while starts and len(ahead) <= _AHEAD:
                    start = starts.popleft()
                    rows = range(start, min(start + batch_size, stop))
                    jobs = [
                        pool.submit(self._augmented, positions[row], draws[row].tolist())
                        if draws is not None
                        else pool.submit(self._plain, positions[row])
                        for row in rows
                    ]
                    ahead.append((self.targets[order[rows.start : rows.stop]], jobs))
                targets, jobs = ahead.popleft()
                yield self._normalise([job.result() for job in jobs]), targets
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _normalise(self, images: list[Pixels]) -> Tensor:
        """Decoded (H, W, 3) images as one normalised float32 (B, 3, H, W) batch."""
        std = torch.tensor(self.std, dtype=torch.float64)
        scale = (1.0 / (255.0 * std)).float().view(1, -1, 1, 1)
        shift = (-torch.tensor(self.mean, dtype=torch.float64) / std).float().view(1, -1, 1, 1)
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return batch.to(torch.float32, memory_format=layout).mul_(scale).add_(shift)

    def _plain(self, position: int) -> Pixels:
        """One image for evaluation, uint8 (size, size, 3)."""
        pixels = self.cache.read(self.root / self.files[position])
        height, width = pixels.shape[:2]
        if height == width == self.size:
            return pixels
        ratio = self.resize / min(height, width)
        image = Image.fromarray(pixels).resize(
            (max(self.size, round(width * ratio)), max(self.size, round(height * ratio))),
            Image.Resampling.BILINEAR,
        )
        left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def _augmented(self, position: int, draws: list[float]) -> Pixels:
        """One image for training from five uniform draws, uint8 (size, size, 3)."""
        pixels = self.cache.read(self.root / self.files[position])
        area, aspect, down, right, flip = draws
        height, width = pixels.shape[:2]
        area = (_AREA[0] + area * (_AREA[1] - _AREA[0])) * height * width
        aspect = _ASPECT[0] * (_ASPECT[1] / _ASPECT[0]) ** aspect
        part_width = min(width, max(1, round((area * aspect) ** 0.5)))
        part_height = min(height, max(1, round((area / aspect) ** 0.5)))
        left = int(right * (width - part_width + 1))
        top = int(down * (height - part_height + 1))
        image = Image.fromarray(pixels).resize(
            (self.size, self.size),
            Image.Resampling.BILINEAR,
            box=(left, top, left + part_width, top + part_height),
        )
        if self.flip and flip < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(image)


def decode(path: Path) -> Pixels:
    """The RGB image in `path`, uint8 (H, W, 3).

    16-bit images are scaled from 0..65535, images of floats from 0..1.

    Raises:
        DataError: the file is missing, truncated or no image; or its values have no known range,
            as 32-bit integers and floats beyond 0..1.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                grey = _eight_bits(image, path)
                return np.repeat(grey[:, :, None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except DataError:
        raise
    # Pillow reports damage by many kinds: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise DataError(
            f"Image {path} cannot be decoded: {error}. Remove it or fetch it again."
        ) from error


def _eight_bits(image: Image.Image, path: Path) -> Pixels:
    """A grey image of 16 or 32 bits scaled by its range, uint8 (H, W).

    Pillow's own conversion clips at 255 instead, so that most of such an image becomes white.
    """
    values = np.asarray(image)
    # Pillow holds the 16 bits of some formats in 32; their range is that of the format.
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BIT)
    if sixteen:
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    low, high = values.min(), values.max()
    if image.mode == "F" and low >= 0.0 and high <= 1.0:
        return np.rint(values * 255.0).astype(np.uint8)
    kind = "floats" if image.mode == "F" else "32-bit integers"
    raise DataError(
        f"Image {path} holds {kind} from {low:g} to {high:g}, whose range is not known. Convert it "
        "to 8 or 16 bits, or to floats within 0..1."
    )


def list_images(folder: Path) -> list[Path]:
    """The image files below `folder`, sorted by path.

    Hidden files are left out, and so are folders below it that are hidden.
    """
    known = Image.registered_extensions()
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in known
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def common_size(paths: Sequence[Path], sample: int = 64) -> tuple[int, int] | None:
    """(height, width) of these images, or None where they differ.

    The headers of `sample` of them, spread over all, are read; what cannot be read is left to
    `decode` to name.
    """
    sizes: set[tuple[int, int]] = set()
    step = max(1, len(paths) // sample)
    for path in paths[::step]:
        try:
            with Image.open(path) as image:
                sizes.add((image.height, image.width))
        except Exception:
            continue
        if len(sizes) > 1:
            return None
    return sizes.pop() if sizes else None
