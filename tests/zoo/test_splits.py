"""Splits in memory: normalisation, order, augmentation, subsets, fingerprints, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from randprune.errors import DataError, InvalidInputError
from randprune.zoo.splits import Split, TensorSplit

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def split() -> TensorSplit:
    images = torch.randint(0, 256, (23, 3, 10, 12), generator=generator(), dtype=torch.uint8)
    return TensorSplit(images, torch.arange(23) % 4, MEAN, STD, num_classes=4)


def normalised(images: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


def collect(split: Split, batch_size: int = 5, **options) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*split.batches(batch_size, **options), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_batches_are_normalised_float32_in_stored_order(split):
    images, labels = collect(split)
    assert isinstance(split, Split)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, normalised(split.images), rtol=1e-5, atol=1e-6)
    assert torch.equal(labels, split.targets)


def test_float_images_are_taken_as_they_are_and_never_lent_out(split):
    stored = torch.rand(6, 3, 8, 8, generator=generator())
    plain = TensorSplit(stored, torch.zeros(6, dtype=torch.int64), (0.0,) * 3, (1.0,) * 3, 1)
    (images, _), *_ = plain.batches(6)
    assert torch.equal(images, stored)
    images.zero_()
    assert not torch.equal(images, plain.images)


def test_channels_last_changes_memory_order_only(split):
    fast = replace(split, channels_last=True)
    for options in ({}, {"shuffle": generator(), "augment": True}):
        again = {**options, "shuffle": generator()} if options else {}
        images, _ = next(iter(fast.batches(8, **options)))
        plain, _ = next(iter(split.batches(8, **again)))
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images, plain)


def test_shuffling_is_a_permutation_and_repeats_with_the_seed(split):
    first = collect(split, shuffle=generator(3))
    second = collect(split, shuffle=generator(3))
    other = collect(split, shuffle=generator(4))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[0], other[0])
    stored = {tuple(image.flatten().tolist()) for image in collect(split)[0]}
    assert {tuple(image.flatten().tolist()) for image in first[0]} == stored


def test_drop_last_and_sizes(split):
    assert [len(y) for _, y in split.batches(5)] == [5, 5, 5, 5, 3]
    assert [len(y) for _, y in split.batches(5, drop_last=True)] == [5, 5, 5, 5]


@pytest.mark.parametrize("padding", ["zero", "reflect"])
@pytest.mark.parametrize("flip", [True, False])
def test_each_augmented_image_is_a_crop_of_the_padded_image(split, padding, flip):
    split = replace(split, padding=padding, pad=3, flip=flip)
    order = torch.randperm(len(split), generator=generator(7))
    images, _ = collect(split, shuffle=generator(7), augment=True)
    raw = split.images[order].float()
    padded = F.pad(raw, (3,) * 4, mode="constant" if padding == "zero" else "reflect")
    flipped, moved = 0, 0
    for image, source in zip(images, padded, strict=True):
        matches = []
        for down in range(7):
            for right in range(7):
                crop = normalised(source[:, down : down + 10, right : right + 12])
                for mirrored in (False, True):
                    candidate = crop.flip(2) if mirrored else crop
                    if torch.allclose(image, candidate, atol=1e-4):
                        matches.append((down, right, mirrored))
        assert len(matches) == 1
        flipped += matches[0][2]
        moved += matches[0][:2] != (3, 3)
    assert moved > 15
    assert 4 < flipped < 19 if flip else flipped == 0


def test_augmentation_depends_neither_on_batch_size_nor_on_consumption(split):
    whole = collect(split, 23, shuffle=generator(1), augment=True)[0]
    assert torch.equal(whole, collect(split, 4, shuffle=generator(1), augment=True)[0])
    one, two = generator(1), generator(1)
    list(split.batches(4, shuffle=one, augment=True))
    split.batches(4, shuffle=two, augment=True)
    assert torch.equal(one.get_state(), two.get_state())


def test_subset_keeps_the_given_order(split):
    part = split.subset(np.array([7, 2, 2]))
    assert torch.equal(part.images, split.images[[7, 2, 2]])
    assert part.labels.tolist() == [3, 2, 2]
    assert part.num_classes == 4
    assert part.image_shape == (3, 10, 12)


def test_fingerprint_follows_pixels_labels_and_normalisation(split):
    same = TensorSplit(split.images.clone(), split.targets.clone(), MEAN, STD, 4, flip=False)
    assert same.fingerprint == split.fingerprint
    # Fixed: a changed value means that records of earlier runs no longer match.
    fixed = TensorSplit(
        torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2), torch.tensor([1]), MEAN, STD, 2, pad=1
    )
    assert fixed.fingerprint == "f29d2ada007a3513"
    pixels, labels = split.images.clone(), split.targets.clone()
    pixels[5, 1, 2, 3] ^= 1
    labels[0] = 1
    assert replace(split, images=pixels).fingerprint != split.fingerprint
    assert replace(split, targets=labels).fingerprint != split.fingerprint
    assert replace(split, mean=(0.0,) * 3).fingerprint != split.fingerprint
    assert split.subset([1, 0]).fingerprint != split.subset([0, 1]).fingerprint


def test_moving_keeps_everything_and_reuses_the_fingerprint(split):
    known = split.fingerprint
    moved = split.to("cpu")
    assert vars(moved)["fingerprint"] == known
    assert torch.equal(collect(moved)[0], collect(split)[0])


def test_fingerprint_does_not_depend_on_strides(split):
    strided = split.images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert replace(split, images=strided).fingerprint == split.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(3, 8, 8)}, r"shape \(N, C, H, W\)"),
        ({"images": torch.zeros(23, 3, 8, 8, dtype=torch.int32)}, "uint8 or float32"),
        ({"images": torch.zeros(0, 3, 8, 8)}, "No images"),
        ({"images": torch.full((23, 3, 8, 8), torch.nan)}, "23 of 23 images hold NaN"),
        ({"targets": torch.arange(22) % 4}, "23 images but 22 labels"),
        ({"targets": torch.arange(23)}, r"19 of 23 labels lie outside 0..3; the first is 4"),
        ({"targets": torch.arange(23) - 1}, "labels lie outside"),
        ({"targets": torch.zeros(23)}, "int64"),
        ({"mean": (0.5,)}, "3 means"),
        ({"std": (0.0, 1.0, 1.0)}, "positive deviations"),
    ],
)
def test_wrong_content_is_a_data_error(split, changes, message):
    with pytest.raises(DataError, match=message):
        replace(split, **changes)


def test_one_infinite_pixel_is_found(split):
    images = torch.zeros(23, 3, 8, 8)
    images[17, 2, 3, 3] = torch.inf
    with pytest.raises(DataError, match=r"1 of 23 .* first is image 17"):
        replace(split, images=images)


@pytest.mark.parametrize("indices", [[], [23], [-1], [0.5], torch.ones(23, dtype=torch.bool)])
def test_wrong_positions_are_a_data_error(split, indices):
    with pytest.raises(DataError, match=r"subset|Positions"):
        split.subset(indices)


def test_wrong_arguments(split):
    with pytest.raises(InvalidInputError, match="batch_size"):
        split.batches(0)
    with pytest.raises(InvalidInputError, match="generator"):
        split.batches(4, augment=True)
    with pytest.raises(InvalidInputError, match="padding"):
        replace(split, padding="wrap")
    with pytest.raises(InvalidInputError, match="between 0 and 9"):
        replace(split, padding="reflect", pad=10)
