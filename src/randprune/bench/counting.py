"""What the scores of one criterion cost by themselves, measured on few images.

In a run, criteria share their passes over the data, so that the price of each cannot be read off
the clock. For a comparison at equal compute each row is charged what its criterion would cost
alone: multiply-adds are counted as the operations run, on two small numbers of images, and
continued in a straight line to the number that the criterion looks at.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from torch import nn
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from randprune.bench.results import Spent
from randprune.criteria import Criterion, passes_of, score
from randprune.space import Space
from randprune.zoo.splits import Samples

_FEW, _MORE = 16, 48


class MacCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the multiply-adds of convolutions and matrix products that run inside its block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operation, and count it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        # While a graph is exported, operations run on shapes alone and cost nothing.
        if count is not None and not any(issubclass(kind, FakeTensor) for kind in types):
            self.macs += count(*args, **kwargs, out_val=result) / 2
        return result


def cost_alone(
    model: nn.Module, space: Space, criterion: Criterion, data: Samples, device: str
) -> Spent:
    """What scoring with this criterion alone costs on all of `data` that it looks at."""
    if not criterion.needs - {"weights"}:
        macs, seconds = _measure(model, space, criterion, None)
        return Spent(0, 0, 0, macs, seconds, device)
    images = min(getattr(criterion, "images", len(data)), len(data))
    few, more = (min(count, images) for count in (_FEW, _MORE))
    macs, seconds = _measure(model, space, criterion, data.subset(np.arange(more)))
    if more < images:
        less, sooner = _measure(model, space, criterion, data.subset(np.arange(few)))
        rest = (images - more) / (more - few)
        macs += rest * (macs - less)
        seconds += rest * max(0.0, seconds - sooner)
    seen = passes_of(criterion, len(data))
    return Spent(0, seen.forward, seen.backward, macs, seconds, device)


def _measure(
    model: nn.Module, space: Space, criterion: Criterion, data: Samples | None
) -> tuple[float, float]:
    start = time.perf_counter()
    with MacCounter() as counted:
        score(model, space, criterion, data)
    return counted.macs, time.perf_counter() - start
