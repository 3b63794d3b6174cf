"""Image folders: decoding, resizing, augmentation, the cache, damaged files."""

import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from randprune.errors import DataError, InvalidInputError
from randprune.zoo.folder import FolderSplit, ImageCache, decode, list_images
from randprune.zoo.splits import Split

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SHAPES = [(32, 32), (40, 60), (90, 33), (20, 20), (32, 48), (32, 32), (50, 50)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def folder(tmp_path: Path) -> FolderSplit:
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate(SHAPES):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    files = tuple(f"{index}.png" for index in range(len(SHAPES)))
    labels = torch.arange(len(SHAPES)) % 3
    return FolderSplit(tmp_path, files, labels, MEAN, STD, 3, size=32, resize=36, workers=2)


def collect(split: Split, batch_size: int = 3, **options) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*split.batches(batch_size, **options), strict=True)
    return torch.cat(images), torch.cat(labels)


def normalised(pixels: np.ndarray) -> torch.Tensor:
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    return (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def test_images_are_resized_and_cropped_like_the_usual_evaluation(folder):
    images, labels = collect(folder)
    assert isinstance(folder, Split)
    assert images.shape == (7, 3, 32, 32)
    assert torch.equal(labels, folder.targets)
    for index, (height, width) in enumerate(SHAPES):
        image = Image.open(folder.root / f"{index}.png")
        if (height, width) != (32, 32):
            short = min(height, width)
            image = image.resize((round(width * 36 / short), round(height * 36 / short)), 2)
            left, top = (image.width - 32) // 2, (image.height - 32) // 2
            image = image.crop((left, top, left + 32, top + 32))
        expected = normalised(np.asarray(image))
        torch.testing.assert_close(images[index], expected, rtol=1e-5, atol=1e-5)


def test_reading_into_memory_gives_the_same_batches(folder):
    whole = folder.in_memory()
    assert torch.equal(collect(whole)[0], collect(folder)[0])
    assert whole.num_classes == 3


def test_cached_and_uncached_passes_agree(folder):
    bare = replace(folder, cache=ImageCache(0))
    for options in ({}, {"augment": True}):
        runs = [
            collect(split, shuffle=generator(5) if options else None, **options)[0]
            for split in (folder, bare, folder)
        ]
        assert torch.equal(runs[0], runs[1])
        assert torch.equal(runs[0], runs[2])
    assert bare.cache.used_bytes == 0
    assert folder.cache.used_bytes == sum(3 * h * w for h, w in SHAPES)


def test_the_cache_stays_below_its_limit(folder):
    limit = 3 * (32 * 32 + 40 * 60)
    bounded = replace(folder, cache=ImageCache(limit), workers=1)
    collect(bounded)
    assert 0 < bounded.cache.used_bytes <= limit


def test_a_cached_image_is_not_decoded_again(folder):
    first = collect(folder)[0]
    for file in folder.files:
        (folder.root / file).write_bytes(b"")
    assert torch.equal(collect(folder)[0], first)


def test_augmentation_is_random_and_repeats_with_the_seed(folder):
    first = collect(folder, shuffle=generator(1), augment=True)[0]
    assert torch.equal(first, collect(folder, 7, shuffle=generator(1), augment=True)[0])
    assert not torch.equal(first, collect(folder, shuffle=generator(2), augment=True)[0])


def test_augmented_images_are_parts_of_the_image(tmp_path):
    # Brightness grows to the right and downwards in a separate channel each: the corners of what
    # comes out tell which part was taken, and whether it was mirrored.
    height, width = 100, 140
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, :, 0] = np.linspace(0, 250, width)[None, :]
    pixels[:, :, 1] = np.linspace(0, 250, height)[:, None]
    Image.fromarray(pixels).save(tmp_path / "ramp.png")
    labels = torch.zeros(200, dtype=torch.int64)
    files = ("ramp.png",) * 200
    split = FolderSplit(tmp_path, files, labels, (0.0,) * 3, (1.0,) * 3, 1, size=32, resize=32)
    images, _ = collect(split, 50, shuffle=generator(), augment=True)
    spread = (images[:, 0, 16, -1] - images[:, 0, 16, 0]) / (250 / 255)
    mirrored = (spread < 0).float().mean()
    assert 0.35 < mirrored < 0.65
    rise = (images[:, 1, -1, 16] - images[:, 1, 0, 16]) / (250 / 255)
    area = spread.abs() * rise
    # Pixel centres lie inside the part, so that its sides come out up to a 32nd short.
    assert area.min() > 0.06
    assert area.max() <= 1.0
    assert area.max() > 0.85
    assert area.median() > 0.35
    plain = replace(split, flip=False)
    images, _ = collect(plain, 50, shuffle=generator(), augment=True)
    assert ((images[:, 0, 16, -1] - images[:, 0, 16, 0]) > 0).all()


def test_channels_last_and_drop_last(folder):
    fast = replace(folder, channels_last=True)
    batches = list(fast.batches(3, drop_last=True))
    assert [len(labels) for _, labels in batches] == [3, 3]
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batches[0][0], next(iter(folder.batches(3)))[0])


def test_subsets_share_the_cache(folder):
    part = folder.subset([4, 1])
    assert part.cache is folder.cache
    assert torch.equal(collect(part)[0], collect(folder)[0][[4, 1]])
    assert part.labels.tolist() == [1, 1]


def test_fingerprint_follows_paths_sizes_and_labels_not_the_root(folder, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in folder.files:
        (moved / file).write_bytes((folder.root / file).read_bytes())
    same = replace(folder, root=moved)
    assert same.fingerprint == folder.fingerprint
    labels = folder.targets.roll(1)
    assert replace(folder, targets=labels).fingerprint != folder.fingerprint
    assert replace(folder, resize=40).fingerprint != folder.fingerprint
    (moved / "3.png").write_bytes(b"another size")
    assert replace(same).fingerprint != folder.fingerprint


def test_a_truncated_image_is_named(folder):
    damaged = folder.root / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:400])
    with pytest.raises(DataError, match=r"3\.png cannot be decoded"):
        collect(folder)
    with pytest.raises(DataError, match=r"3\.png cannot be decoded"):
        folder.in_memory()


def test_a_pass_that_is_left_early_stops_its_threads(folder):
    import threading

    images = folder.batches(1)
    next(images)
    images.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_colour_modes_become_rgb(tmp_path, mode):
    path = tmp_path / "image.tiff"
    Image.new("RGB", (8, 6), (255, 255, 255)).convert(mode).save(path)
    assert decode(path).shape == (6, 8, 3)
    assert decode(path).min() >= 250


def test_only_image_files_are_listed(tmp_path):
    for name in ("b.JPEG", "a.png", "notes.txt", ".hidden.png", "deep/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a.png", "b.JPEG", "deep/c.webp"]


def test_wrong_arguments(folder):
    with pytest.raises(InvalidInputError, match="size <= resize"):
        replace(folder, size=40)
    with pytest.raises(InvalidInputError, match="workers"):
        replace(folder, workers=0)
    with pytest.raises(DataError, match="No images"):
        replace(folder, files=())
    with pytest.raises(DataError, match="7 images but 2 labels"):
        replace(folder, targets=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InvalidInputError, match="generator"):
        folder.batches(2, augment=True)


RAMP = np.linspace(0, 65535, 64 * 64).reshape(64, 64)


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """A PNG of three 16-bit channels, which Pillow itself does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.jp2", "a.pgm", "big.tiff", "rgb.png"])
def test_16_bit_images_are_scaled_by_their_range(tmp_path, name):
    """They were clipped at 255: a ramp over all values had the median 255."""
    path, pixels = tmp_path / name, RAMP.round().astype(np.uint16)
    if name == "rgb.png":
        path.write_bytes(png_of_16_bits(np.repeat(pixels[:, :, None], 3, 2)))
    elif name == "a.pgm":
        path.write_bytes(b"P5 64 64 65535\n" + pixels.astype(">u2").tobytes())
    elif name == "big.tiff":
        Image.frombytes("I;16B", (64, 64), pixels.astype(">u2").tobytes()).save(path)
    elif name == "a.jp2":
        Image.fromarray(pixels).save(path, irreversible=False)
    else:
        Image.fromarray(pixels).save(path)
    found = decode(path)
    assert found.shape == (64, 64, 3)
    assert found.dtype == np.uint8
    # Pillow takes the upper byte of colour images, which differs by rounding only.
    assert np.abs(found[:, :, 0] - RAMP / 257).max() <= 1
    assert 127 <= np.median(found) <= 128


def test_float_images_within_0_and_1_are_scaled(tmp_path):
    Image.fromarray((RAMP / 65535).astype(np.float32)).save(tmp_path / "a.tiff")
    found = decode(tmp_path / "a.tiff")
    assert np.abs(found[:, :, 1] - RAMP / 257).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP.astype(np.int32), "32-bit integers from 0 to 65535, whose range is not known"),
        (RAMP.astype(np.float32), r"floats from 0 to 65535.*Convert it to 8 or 16 bits"),
        (np.full((4, 4), -0.1, np.float32), "floats from -0.1 to -0.1"),
        (np.full((4, 4), np.nan, np.float32), "floats from nan to nan"),
    ],
)
def test_images_of_no_known_range_are_refused(tmp_path, values, message):
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=message):
        decode(tmp_path / "a.tiff")


def test_hidden_folders_are_no_data(tmp_path):
    for name in ("a.png", ".thumbnails/a.png", "deep/.cache/b.png", ".hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path) == [tmp_path / "a.png"]
    # The folder that was named may itself lie in a hidden one.
    assert list_images(tmp_path / ".thumbnails") == [tmp_path / ".thumbnails" / "a.png"]


def test_file_names_that_are_not_utf_8(tmp_path):
    name = os.fsdecode(b"\xff\xfe.png")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / name)
    (file,) = list_images(tmp_path)
    split = FolderSplit(tmp_path, (file.name,), torch.zeros(1).long(), MEAN, STD, 1, size=32)
    assert len(split.fingerprint) == 16
    assert len(collect(split)[0]) == 1
