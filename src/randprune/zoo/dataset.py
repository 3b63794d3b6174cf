"""A data set under the protocol: disjoint parts of the training images, and a guarded test set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from randprune.errors import DataError, InvalidInputError, quoted
from randprune.zoo.splits import Samples, is_split

IntArray = npt.NDArray[np.int64]

# Far above any network's; a label beyond it is no class index.
MOST_CLASSES = 1 << 20
CALIBRATION_LIMIT = 2_000
SEARCH_LIMIT = 5_000


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is known of test samples that this process does not hold: how many, and which."""

    count: int
    fingerprint: str

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Training samples in three disjoint parts, and the test samples behind a counter.

    Samples are labelled images, or have any other structure. Those for calibration feed recovery
    and data-driven criteria, those for search rank candidates, those to fit train; `full_train` is
    all three together, for the final fine-tuning. The test set is reachable through `open_test`
    only, which counts.

    Build it with `make_data`, `as_data` or `load_data`.

    Attributes:
        name: where the images come from, e.g. "npz:cifar10".
        class_names: one name a class, in label order; none where there are no classes.
        full_train: all training images.
        fit_indices, calibration_indices, search_indices: positions in `full_train`, int64. Every
            prefix of each is as class-balanced as it can be.
        seed: what drew the parts.
        provenance: what else identifies the source (paths, options), JSON-ready.
    """

    name: str
    class_names: tuple[str, ...]
    full_train: Samples
    fit_indices: IntArray
    calibration_indices: IntArray
    search_indices: IntArray
    seed: int
    provenance: Mapping[str, Any]
    _test: Samples | Sealed | None = field(repr=False)
    _openings: list[str] = field(default_factory=list, repr=False)
    _parts: dict[str, Samples] = field(default_factory=dict, repr=False)

    @property
    def fit(self) -> Samples:
        """The images that train during the search phase: all but calibration and search."""
        return self._part("fit", self.fit_indices)

    @property
    def calibration(self) -> Samples:
        """The images for statistics and data-driven criteria."""
        return self._part("calibration", self.calibration_indices)

    @property
    def search(self) -> Samples:
        """The held-out training images that rank candidates."""
        return self._part("search", self.search_indices)

    def with_fresh(
        self, *, calibration: Samples | None = None, search: Samples | None = None
    ) -> Data:
        """The same data, with images for calibration or search that no training has seen.

        Training images have been seen by the network, which is surer of them than of others. Those
        whose place fresh ones take are free to fit.

        Raises:
            DataError: they differ from the training images in shape or classes, or are the test
                images.
        """
        fit, about, parts = [self.fit_indices], dict(self.provenance), dict(self._parts)
        empty = np.empty(0, dtype=np.int64)
        left = {"calibration": self.calibration_indices, "search": self.search_indices}
        for part, fresh in (("calibration", calibration), ("search", search)):
            if fresh is None:
                continue
            ours = (self.image_shape, self.num_classes)
            if is_split(fresh) and (fresh.image_shape, fresh.num_classes) != ours:
                raise DataError(
                    f"The {part} data has images {fresh.image_shape} of {fresh.num_classes} "
                    f"classes, {self.name} has {ours[0]} of {ours[1]}. Give images of the same "
                    "kind."
                )
            if self._test is not None and fresh.fingerprint == self._test.fingerprint:
                raise DataError(
                    f"The {part} data are the test images of {self.name}, which nothing may be "
                    "chosen by. Give others."
                )
            fit.append(left[part])
            left[part], parts[part] = empty, fresh
            about[f"{part}_fingerprint"] = fresh.fingerprint
        parts.pop("fit", None)
        return replace(
            self,
            fit_indices=np.concatenate(fit),
            calibration_indices=left["calibration"],
            search_indices=left["search"],
            provenance=about,
            _parts=parts,
        )

    def _part(self, name: str, indices: IntArray) -> Samples:
        # A part of a split in memory is a copy of its images: made once, when first asked for.
        if name not in self._parts:
            self._parts[name] = self.full_train.subset(indices)
        return self._parts[name]

    def open_test(self, reason: str) -> Samples:
        """The test set, for final numbers alone; each call counts and records its reason.

        Raises:
            DataError: there is none.
        """
        if not reason.strip():
            raise InvalidInputError(
                "The 'reason' parameter of open_test must say why the test set is opened."
            )
        if self._test is None:
            raise DataError(f"The data {self.name!r} has no test set.")
        if isinstance(self._test, Sealed):
            raise DataError(
                f"The test set of {self.name!r} is sealed: what proposes or trains networks does "
                "not hold it. Final numbers are made once all of them are recorded."
            )
        self._openings.append(reason)
        return self._test

    @property
    def is_sealed(self) -> bool:
        """Whether there is a test set that this object cannot open."""
        return isinstance(self._test, Sealed)

    def sealed(self) -> Data:
        """The same data without the test samples; their number and fingerprint stay known."""
        if self._test is None or self.is_sealed:
            return self
        return replace(self, _test=Sealed(len(self._test), self._test.fingerprint))

    def unsealed(self, whole: Data) -> Data:
        """The same data with the test samples that `whole` has.

        Raises:
            DataError: they are others than those that were sealed.
        """
        if not isinstance(self._test, Sealed):
            return self
        found = whole._test
        if found is None or found.fingerprint != self._test.fingerprint:
            raise DataError(
                f"The test images of {self.name!r} have changed since the run began. Bring them "
                "back, or use a new output folder."
            )
        return replace(self, _test=found)

    @property
    def test_opened(self) -> int:
        """How often the test set was opened: 0 until the final evaluation."""
        return len(self._openings)

    @property
    def test_reasons(self) -> tuple[str, ...]:
        """The reason of each opening, in order."""
        return tuple(self._openings)

    @property
    def num_classes(self) -> int:
        """How many classes the network has to tell apart; 0 where there are no classes."""
        return self.full_train.num_classes if is_split(self.full_train) else 0

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W) of labelled images; () for samples of another structure."""
        return self.full_train.image_shape if is_split(self.full_train) else ()

    def describe(self) -> dict[str, Any]:
        """What identifies the data, JSON-ready; the test set is hashed, not opened."""
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            "image_shape": list(self.image_shape),
            "class_names": list(self.class_names) if len(self.class_names) <= 100 else None,
            "train_images": len(self.full_train),
            "fit_images": len(self.fit_indices),
            "calibration_images": len(self.calibration),
            "search_images": len(self.search),
            "test_images": 0 if self._test is None else len(self._test),
            "split_seed": self.seed,
            "train_fingerprint": self.full_train.fingerprint,
            "test_fingerprint": "" if self._test is None else self._test.fingerprint,
            "test_opened": self.test_opened,
            "test_reasons": list(self.test_reasons),
            **self.provenance,
        }


def make_data(
    name: str,
    train: Samples,
    test: Samples | None,
    class_names: tuple[str, ...] | None = None,
    *,
    sizes: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> Data:
    """A `Data` whose calibration and search parts are drawn, class-balanced, from `train`.

    Args:
        name: where the images come from.
        train: all training images, or samples of another structure.
        test: those for final numbers; None: there are none.
        class_names: default: the class indices as text.
        sizes: images for (calibration, search). Default: 10 % of the training images but at most
            2,000, and 20 % but at most 5,000.
        seed: draws the parts; the same seed gives the same parts in any process, and the
            calibration part does not depend on the size of the search part.
        provenance: what else identifies the source, JSON-ready.

    Raises:
        DataError: train and test differ in shape or number of classes, or the parts do not fit.
    """
    if not is_split(train):
        parts = partition(torch.zeros(len(train), dtype=torch.int64), *sizes, seed=seed)
        fit, calibration, search = parts
        about = dict(provenance or {})
        return Data(name, (), train, fit, calibration, search, seed, about, test)
    if not is_split(test):
        raise DataError(f"The training images of {name!r} have classes, the test data has not.")
    if train.image_shape != test.image_shape or train.num_classes != test.num_classes:
        raise DataError(
            f"Training and test images of {name!r} differ: shapes {train.image_shape} and "
            f"{test.image_shape}, {train.num_classes} and {test.num_classes} classes."
        )
    count_classes(train.num_classes - 1, name)
    names = class_names or tuple(str(index) for index in range(train.num_classes))
    if len(names) != train.num_classes:
        raise DataError(f"{name!r} has {train.num_classes} classes but {len(names)} class names.")
    fit, calibration, search = partition(train.labels, *sizes, seed=seed)
    return Data(name, names, train, fit, calibration, search, seed, dict(provenance or {}), test)


def count_classes(highest: int, where: str) -> int:
    """How many classes labels up to `highest` mean (-1: there is no label).

    Raises:
        DataError: it is no class index.
    """
    if not -1 <= highest < MOST_CLASSES:
        raise DataError(
            f"The highest label of {where} is {highest}; labels are class indices from 0, below "
            f"{MOST_CLASSES:,}. Number the classes from 0."
        )
    return highest + 1


def printable(name: str) -> str:
    """A file's name as text that every terminal, record and page can hold."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_sizes(**sizes: int | None) -> None:
    """Raise an `InvalidInputError` for a size of a part that is no number of samples."""
    for name, size in sizes.items():
        whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
        if size is not None and not (whole and size >= 1):
            raise InvalidInputError(
                f"The {name!r} parameter must be a number of samples of at least 1, or None. "
                f"Got {quoted(size)} instead."
            )


def partition(
    labels: Tensor, calibration: int | None = None, search: int | None = None, *, seed: int = 0
) -> tuple[IntArray, IntArray, IntArray]:
    """Disjoint (fit, calibration, search) positions in `labels` that together are all of them.

    Each class gives each part its share (largest remainder); inside a part the classes are
    interleaved, so that every prefix is balanced too.

    Raises:
        DataError: a part would be empty.
        InvalidInputError: a size is no number of samples.
    """
    check_sizes(calibration=calibration, search=search)
    targets, count = labels.numpy(), len(labels)
    calibration = min(CALIBRATION_LIMIT, count // 10) if calibration is None else calibration
    search = min(SEARCH_LIMIT, count // 5) if search is None else search
    if min(calibration, search) < 1 or calibration + search >= count:
        raise DataError(
            f"{count} training images cannot give {calibration} for calibration, {search} for "
            "search and at least one to fit. Set the sizes 'calibration' and 'search'."
        )
    rng = np.random.default_rng([seed, 0x5EED])
    # One fixed random order with the classes interleaved: cutting it into parts balances each.
    order = _interleave(rng.permutation(count).astype(np.int64), targets)
    parts = np.split(order, [calibration, calibration + search])
    return parts[2], parts[0], parts[1]


def balanced(split: Samples, count: int, seed: int) -> Samples:
    """At most `count` samples of a split, as class-balanced as can be."""
    if len(split) <= count:
        return split
    rng = np.random.default_rng([seed, 0xF4E5])
    order = rng.permutation(len(split)).astype(np.int64)
    if is_split(split):
        order = _interleave(order, split.labels.numpy())
    return split.subset(order[:count])


def holdout(labels: Tensor, share: float, seed: int) -> tuple[IntArray, IntArray]:
    """Disjoint class-balanced positions: (the rest, `share` of the labels), both seeded.

    Raises:
        DataError: fewer than two images.
    """
    count = len(labels)
    if count < 2:
        raise DataError(f"{count} image cannot be divided into a training and a test set.")
    rng = np.random.default_rng([seed, 0x7E57])
    order = _interleave(rng.permutation(count).astype(np.int64), labels.numpy())
    held = min(count - 1, max(1, round(share * count)))
    return order[held:], order[:held]


def _interleave(order: IntArray, targets: npt.NDArray[Any]) -> IntArray:
    """`order` rearranged so that every run of it holds the classes in their overall proportion.

    The k-th of n images of a class goes to the relative position (k + 1/2) / n. Equal positions are
    taken in the order of the classes, always the same, so that classes of equal size take turns.
    """
    classes = targets[order]
    counts = np.bincount(classes)
    grouped = np.argsort(classes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.empty(len(order), dtype=np.float64)
    rank[grouped] = np.arange(len(order)) - starts[classes[grouped]]
    return order[np.lexsort((classes, (rank + 0.5) / counts[classes]))]
