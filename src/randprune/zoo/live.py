"""Samples of any structure: those that a data set makes anew in each pass, and those at hand.

`LiveSplit` asks a torch `Dataset` in every pass, so that random transforms stay random, and holds
one batch at a time, so that data may be larger than memory. `HeldSplit` has tensors.

What a data set draws (from torch, numpy or `random`) depends on the pass alone: a pass in the
stored order draws the same every time, so that all networks are compared on the same inputs; one
that is shuffled draws anew with its generator. Global random states are put back.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from randprune.errors import DataError, RandpruneError
from randprune.graph.trees import count_of, joined, map_tensors, named_leaves, shown
from randprune.zoo.splits import Indices, Samples, check_indices, check_pass

_FINGERPRINTED = 64
"""Samples of a live data set that its fingerprint is made of."""


@dataclass(frozen=True, eq=False)
class HeldSplit:
    """Tensors in memory: the first axis of each counts the samples.

    Attributes:
        samples: a tensor, or a structure of tensors of equal length; what is no tensor is the same
            for all samples.
    """

    samples: Any

    def __post_init__(self) -> None:
        lengths = {name: len(x) if x.ndim else 0 for name, x in named_leaves(self.samples)}
        if len(set(lengths.values())) != 1 or not min(lengths.values()):
            raise DataError(
                "Samples must be tensors of equal length, at least 1. Got "
                f"{shown(self.samples)} instead."
            )

    def __len__(self) -> int:
        return count_of(self.samples)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all values."""
        return _hash(self.samples)

    def subset(self, indices: Indices) -> HeldSplit:
        """The given samples, copied, in the given order."""
        index = check_indices(indices, len(self))
        return HeldSplit(map_tensors(lambda x: x.index_select(0, index.to(x.device)), self.samples))

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: torch.Generator | None = None,
        augment: bool = False,
        drop_last: bool = False,
    ) -> Iterator[Any]:
        """One pass, in batches of the structure of the samples; nothing is augmented."""
        check_pass(batch_size, shuffle, augment)
        order = torch.randperm(len(self), generator=shuffle) if shuffle else torch.arange(len(self))
        return self._run(torch.split(order, batch_size), batch_size if drop_last else 1)

    def _run(self, parts: tuple[Tensor, ...], least: int) -> Iterator[Any]:
        for part in parts:
            if len(part) >= least:
                yield self.subset(part).samples


@dataclass(frozen=True, eq=False)
class LiveSplit:
    """Samples that a data set makes when they are asked for.

    Attributes:
        dataset: has a length, and gives the sample at a position.
        collate: makes a batch of a list of samples.
        positions: of the samples in the data set, int64 (N,).
        name: what messages call it.
    """

    dataset: Any
    collate: Callable[[list[Any]], Any]
    positions: Tensor
    name: str = "data"

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of some samples and of how many there are, not of all."""
        digest = hashlib.sha256(f"{type(self.dataset).__name__}:{len(self)}".encode())
        every = max(1, len(self) // _FINGERPRINTED)
        digest.update(self.positions.numpy().astype("<i8").tobytes())
        for batch in self.subset(torch.arange(0, len(self), every)).batches(1):
            digest.update(_hash(batch).encode())
        return digest.hexdigest()[:16]

    @property
    def bytes_of_all(self) -> int:
        """What all samples take as tensors, judged by the first one."""
        first = next(self.batches(1))
        return len(self) * sum(leaf.nbytes for _, leaf in named_leaves(first))

    def in_memory(self) -> Samples:
        """The samples of one pass in the stored order, held; itself where they do not fit together.

        Sizes that differ from batch to batch, and lists of targets, stay as they are.
        """
        try:
            return HeldSplit(joined(list(self.batches(1))))
        except DataError:
            return self

    def subset(self, indices: Indices) -> LiveSplit:
        """The samples at the given places, in the given order."""
        return replace(self, positions=self.positions[check_indices(indices, len(self))])

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: torch.Generator | None = None,
        augment: bool = False,
        drop_last: bool = False,
    ) -> Iterator[Any]:
        """One pass, as `collate` makes batches; augmentation is the data set's own.

        Raises:
            DataError: a sample cannot be made, or samples do not fit together.
        """
        check_pass(batch_size, shuffle, augment)
        order, seed = self.positions, 0
        if shuffle is not None:
            order = order[torch.randperm(len(order), generator=shuffle)]
            seed = int(torch.randint(0, 2**31, (1,), generator=shuffle))
        parts = [p for p in torch.split(order, batch_size) if not drop_last or len(p) == batch_size]
        return self._run(parts, seed)

    def _run(self, parts: list[Tensor], seed: int) -> Iterator[Any]:
        for number, part in enumerate(parts):
            with drawing(seed, number):
                batch = self._batch(part.tolist())
            yield batch

    def _batch(self, places: list[int]) -> Any:
        place = places[0]
        try:
            samples = []
            for place in places:
                samples.append(self.dataset[place])
        except RandpruneError:
            raise
        except Exception as error:
            raise DataError(
                f"Sample {place} of the {self.name} cannot be read: {_said(error)}."
            ) from error
        try:
            return self.collate(samples)
        except RandpruneError:
            raise
        except Exception as error:
            raise DataError(
                f"{len(samples)} samples of the {self.name}, the first at {places[0]}, cannot be "
                f"made a batch: {_said(error)}. Give all samples one structure and size, or a "
                "DataLoader with a collate_fn."
            ) from error


@contextmanager
def drawing(seed: int, number: int) -> Iterator[None]:
    """Seeds everything that a data set may draw from, and puts it back."""
    mixed = (seed * 1_000_003 + number) % 2**32
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed)
        random.seed(mixed)
        np.random.seed(mixed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def _said(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _hash(value: Any) -> str:
    digest = hashlib.sha256()
    for name, leaf in named_leaves(value):
        digest.update(f"{name}:{leaf.dtype}:{tuple(leaf.shape)};".encode())
        plain = leaf.detach().cpu().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    return digest.hexdigest()[:16]
