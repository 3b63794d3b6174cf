"""`score`: the one entry to all criteria."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from randprune.criteria.base import Batch, Criterion, ScoringContext, criteria
from randprune.errors import DataError, InvalidInputError
from randprune.graph.program import evaluation_mode
from randprune.space import Space


def score(
    model: nn.Module,
    space: Space,
    criterion: str | Criterion,
    data: Any = None,
    *,
    seed: int = 0,
    batch_size: int = 128,
    shared: dict[str, Any] | None = None,
) -> list[torch.Tensor]:
    """Scores of all channels: one (width,) float tensor a group, higher = keep.

    Args:
        model: the dense network that was traced; left bit-identical.
        space: its channel groups.
        criterion: a registered name ("l1", "l2", "random", ...) or an object.
        data: what data-driven criteria look at: an object with `batches(batch_size)` (a data
            split), or an iterable of (images, labels) batches that can be walked repeatedly.
        seed: of the generator that random criteria use.
        batch_size: for data that comes as a split.
        shared: a dict in which several calls on the same network share their data passes.

    Raises:
        InvalidInputError: unknown criterion, or scores of the wrong form from a plug-in.
        DataError: the criterion needs data and none was given.
    """
    chosen = criteria.create(criterion) if isinstance(criterion, str) else criterion
    if chosen.needs - {"weights"} and data is None:
        raise DataError(
            f"The criterion {chosen.name!r} looks at {', '.join(sorted(chosen.needs))}: give "
            "`data`, e.g. a calibration split or a list of (images, labels) batches."
        )
    context = ScoringContext(
        model,
        space,
        _batches(data, batch_size),
        torch.Generator().manual_seed(seed),
        {} if shared is None else shared,
    )
    with evaluation_mode(model):
        scores = chosen.scores(context)
    _check(chosen.name, space, scores)
    return scores


def _batches(data: Any, batch_size: int) -> Callable[[], Iterable[Batch]] | None:
    if data is None:
        return None
    if hasattr(data, "batches"):
        return lambda: data.batches(batch_size)
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], torch.Tensor):
        images, labels = data
        return lambda: zip(images.split(batch_size), labels.split(batch_size), strict=True)
    if not isinstance(data, Iterable):
        raise DataError(
            "The 'data' parameter of score must be a split, a pair of tensors or an iterable of "
            f"(images, labels) batches. Got {type(data).__name__} instead."
        )
    batches = data if hasattr(data, "__len__") else list(data)
    return lambda: batches


def _check(name: str, space: Space, scores: list[torch.Tensor]) -> None:
    if len(scores) != len(space.groups):
        raise InvalidInputError(
            f"The criterion {name!r} gave {len(scores)} scores for {len(space.groups)} groups."
        )
    for group, values in zip(space.groups, scores, strict=True):
        if values.shape != (group.width,) or not bool(torch.isfinite(values).all()):
            raise InvalidInputError(
                f"The criterion {name!r} gave group {group.name!r} scores of shape "
                f"{tuple(values.shape)}, finite: {bool(torch.isfinite(values).all())}; "
                f"it must give {group.width} finite numbers."
            )
