"""Counts what a method looks at: the ledger of one proposal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from randprune.bench.results import Spent
from randprune.jobs.ledger import Gathered, cost_entry
from randprune.store import CostEntry
from randprune.zoo.splits import Batch, ImageShape, Indices, Split


@dataclass(slots=True, eq=False)
class Meter:
    """Adds up candidates and images; seconds run from its making.

    Images count by the MACs that one of them costs. What all rows of a run share, such as moments,
    is charged to each row that uses it, once, as if it were alone; the run's ledger has it once.

    Attributes:
        device: where the work is done.
        ledger: where candidates are recorded, with what they cost.
    """

    device: str
    ledger: Gathered = field(default_factory=Gathered)
    _forward: Counter[float] = field(default_factory=Counter)
    _backward: Counter[float] = field(default_factory=Counter)
    _shared: dict[str, tuple[float, int]] = field(default_factory=dict)
    _started: float = field(default_factory=time.perf_counter)

    def look(self, macs: float, images: int, backward: int = 0) -> None:
        """Images went through a network of so many MACs an image, and so many of them back."""
        self._forward[macs] += images
        if backward:
            self._backward[macs] += backward

    def charge(self, what: str, macs: float, images: int) -> None:
        """A shared thing is used, that took so many images at so many MACs each."""
        self._shared[what] = (macs, images)

    def entry(self, phase: str, key: str) -> CostEntry:
        """All that was done for this row alone as a ledger entry."""
        looked = cost_entry(
            phase,
            key,
            seconds=time.perf_counter() - self._started,
            device=self.device,
            forward=self._forward,
            backward=self._backward,
        )
        made = self.ledger.costs
        return replace(
            looked,
            candidates=sum(entry.candidates for entry in made),
            images_forward=looked.images_forward + sum(entry.images_forward for entry in made),
            images_backward=looked.images_backward + sum(entry.images_backward for entry in made),
            macs_spent=looked.macs_spent + sum(entry.macs_spent for entry in made),
        )

    def spent(self, cost: CostEntry) -> Spent:
        """An entry of this meter as the compute of a result, with what is shared."""
        own = spent_of(cost)
        images = sum(images for _, images in self._shared.values())
        macs = sum(per * images for per, images in self._shared.values())
        return replace(own, images_forward=own.images_forward + images, macs=own.macs + macs)


def spent_of(cost: CostEntry) -> Spent:
    """A ledger entry as the compute of a result."""
    return Spent(
        cost.candidates,
        cost.images_forward,
        cost.images_backward,
        cost.macs_spent,
        cost.seconds,
        cost.device,
    )


@dataclass(frozen=True, slots=True, eq=False)
class CountedSplit:
    """A split whose passes are counted as forward passes of a network with `macs` an image."""

    split: Split
    meter: Meter
    macs: float

    @property
    def num_classes(self) -> int:
        """As of the split."""
        return self.split.num_classes

    @property
    def image_shape(self) -> ImageShape:
        """As of the split."""
        return self.split.image_shape

    @property
    def labels(self) -> Tensor:
        """As of the split; not counted."""
        return self.split.labels

    @property
    def fingerprint(self) -> str:
        """As of the split."""
        return self.split.fingerprint

    def __len__(self) -> int:
        return len(self.split)

    def through(self, macs: float) -> CountedSplit:
        """The same split, its images counted at so many MACs each."""
        return CountedSplit(self.split, self.meter, macs)

    def subset(self, indices: Indices) -> CountedSplit:
        """Counted as well."""
        return CountedSplit(self.split.subset(indices), self.meter, self.macs)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: torch.Generator | None = None,
        augment: bool = False,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """A pass of the split; its images are counted as they come."""
        for images, labels in self.split.batches(
            batch_size, shuffle=shuffle, augment=augment, drop_last=drop_last
        ):
            self.meter.look(self.macs, len(images))
            yield images, labels
