"""Rows of a set that is held in memory, in an order drawn anew in every pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def shuffled(count: int, size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """`steps` tensors of `min(size, count)` row numbers, int64; no row twice within a pass.

    What is left at the end of a pass and fills no batch is not used in it.
    """
    size = min(size, count)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(count, generator=generator)
        rows, order = order[:size], order[size:]
        yield rows
