"""`score`: the one entry to all criteria; `score_all` for several at the price of the dearest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from randprune.criteria.base import Batch, Criterion, ScoringContext, criteria
from randprune.errors import DataError, InvalidInputError, RandpruneError, quoted
from randprune.graph.entrance import check_space, plain_module
from randprune.memory import is_about_memory
from randprune.recovery.dense import DenseStatistics, statistics_of
from randprune.space import Space


def score(
    model: nn.Module,
    space: Space,
    criterion: str | Criterion,
    data: Any = None,
    *,
    seed: int = 0,
    batch_size: int = 128,
    shared: DenseStatistics | None = None,
) -> list[torch.Tensor]:
    """Scores of all channels: one (width,) float tensor a group, higher = keep.

    Args:
        model: the dense network that was traced; left bit-identical.
        space: its channel groups.
        criterion: a registered name ("l1", "l2", "random", ...) or an object.
        data: what data-driven criteria look at: an object with `batches(batch_size)` (a data
            split), a pair of tensors (images, labels), or an iterable of (images, labels) batches
            that can be walked repeatedly. Images are float32 and normalised.
        seed: of the generator that random criteria use.
        batch_size: for data that comes as a split or as a pair of tensors.
        shared: what several calls on the same network and data know of it together, such as the
            passes over the data: one `DenseStatistics(model, space)` for all of them.

    Raises:
        InvalidInputError: unknown criterion, scores of the wrong form from a plug-in, or `shared`
            of another network.
        DataError: the criterion needs data and none was given, or it is empty or unsound.
        UnsupportedModelError: a criterion that looks at data cannot look into this network.

    Examples:
        >>> from torch import nn
        >>> from randprune import trace
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> space = trace(net, torch.zeros(1, 3, 8, 8))
        >>> [scores.shape for scores in score(net, space, "l1")]
        [torch.Size([4])]
        >>> images, labels = torch.randn(8, 3, 8, 8), torch.zeros(8, dtype=torch.int64)
        >>> [scores.shape for scores in score(net, space, "reconstruction", (images, labels))]
        [torch.Size([4])]
    """
    model = plain_module(model, "score")
    check_space(model, space, "score")
    chosen = criteria.named_or_given(criterion, Criterion, "criterion")
    return _scores(model, space, [chosen], data, seed, batch_size, shared)[0]


def score_all(
    model: nn.Module,
    space: Space,
    chosen: Iterable[str | Criterion],
    data: Any = None,
    *,
    seed: int = 0,
    batch_size: int = 128,
    shared: DenseStatistics | None = None,
) -> dict[str, list[torch.Tensor]]:
    """The scores of several criteria by name, from shared passes over the data.

    The same numbers as from one call of `score` each, up to rounding; arguments and errors too.

    Raises:
        InvalidInputError: two criteria of one name, too.
    """
    model = plain_module(model, "score_all")
    check_space(model, space, "score_all")
    objects = [criteria.named_or_given(c, Criterion, "chosen") for c in chosen]
    names = [c.name for c in objects]
    if len(set(names)) < len(names):
        raise InvalidInputError(
            f"The criteria of score_all must have different names. Got {', '.join(names)}."
        )
    found = _scores(model, space, objects, data, seed, batch_size, shared)
    return dict(zip(names, found, strict=True))


def _scores(
    model: nn.Module,
    space: Space,
    chosen: Sequence[Criterion],
    data: Any,
    seed: int,
    batch_size: int,
    shared: DenseStatistics | None,
) -> list[list[torch.Tensor]]:
    for criterion in chosen:
        if criterion.needs - {"weights"} and data is None:
            raise DataError(
                f"The criterion {criterion.name!r} needs {', '.join(sorted(criterion.needs))}: "
                "give `data`, e.g. a calibration split or a list of (images, labels) batches."
            )
    for name, number, least in (("seed", seed, -(2**63)), ("batch_size", batch_size, 1)):
        whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if not whole or not least <= number < 2**63:
            raise InvalidInputError(
                f"The {name!r} parameter of score must be a whole number"
                f"{' of at least 1' if least == 1 else ' of 64 bits'}. "
                f"Got {quoted(number)} instead."
            )
    shared = statistics_of(model, space, shared)
    batches, images = _batches(data, batch_size, shared.device)
    contexts = [
        ScoringContext(shared, batches, torch.Generator().manual_seed(seed), images) for _ in chosen
    ]
    found = []
    with _runs_on(data, space):
        for criterion, context in zip(chosen, contexts, strict=True):
            prepare = getattr(criterion, "prepare", None)
            if prepare is not None:
                prepare(context)
        for criterion, context in zip(chosen, contexts, strict=True):
            found.append(criterion.scores(context))
            _check(criterion.name, space, found[-1])
    return found


@contextmanager
def _runs_on(data: Any, space: Space) -> Iterator[None]:
    """Within the block, what torch raises on images of a wrong shape becomes a `DataError`."""
    try:
        yield
    except RandpruneError:
        raise
    except RuntimeError as error:
        if data is None or is_about_memory(error):
            raise
        shapes = ", ".join("x".join(map(str, shape)) for shape, _ in space.inputs)
        raise DataError(
            f"The network does not run on the scoring data: {str(error).partition(chr(10))[0]}. "
            f"It was traced with inputs of shape {shapes}."
        ) from error


def _batches(
    data: Any, batch_size: int, device: torch.device
) -> tuple[Callable[[], Iterable[Batch]] | None, int | None]:
    """What starts a pass, and how many images one yields where that is known."""
    if data is None:
        return None, None
    start: Callable[[], Iterable[Any]]
    count: int | None = None
    if hasattr(data, "batches"):
        start = lambda: data.batches(batch_size)  # noqa: E731
        count = len(data) if hasattr(data, "__len__") else None
    elif isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], torch.Tensor):
        images, labels = data
        if not isinstance(labels, torch.Tensor):
            raise DataError(
                "The 'data' parameter of score must be a pair of tensors (images, labels). The "
                f"labels are {type(labels).__name__} instead."
            )
        if len(images) != len(labels):
            raise DataError(
                f"There are {len(images)} images but {len(labels)} labels in the scoring data."
            )
        start = lambda: zip(  # noqa: E731
            torch.split(images, batch_size), torch.split(labels, batch_size), strict=True
        )
        count = len(images)
    elif isinstance(data, Iterable) and not isinstance(data, (torch.Tensor, str, dict)):
        held = data if hasattr(data, "__len__") else list(data)
        start = lambda: held  # noqa: E731
        if isinstance(held, (list, tuple)):
            count = sum(len(batch[0]) for batch in checked(held, None))
        elif hasattr(dataset := getattr(held, "dataset", None), "__len__"):
            count = len(dataset)  # type: ignore[arg-type]
    else:
        raise DataError(
            "The 'data' parameter of score must be a split, a pair of tensors or an iterable of "
            f"(images, labels) batches. Got {type(data).__name__} instead."
        )
    return lambda: checked(start(), device), count


def checked(batches: Iterable[Any], device: torch.device | None) -> Iterator[Batch]:
    """The batches on a device (None: where they are); `DataError` for what is no such batch."""
    for number, batch in enumerate(batches):
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if not pair or not all(isinstance(part, torch.Tensor) for part in batch):
            raise DataError(
                f"Batch {number} of the scoring data is {type(batch).__name__}, not a pair of "
                "tensors. Give (images, labels) batches."
            )
        images, labels = batch
        if not images.is_floating_point():
            raise DataError(
                f"Batch {number} of the scoring data holds {images.dtype} images. Give them "
                "normalised, as floating-point numbers, the way the network was trained."
            )
        if len(images) != len(labels):
            raise DataError(
                f"Batch {number} of the scoring data holds {len(images)} images but {len(labels)} "
                "labels."
            )
        if len(images) == 0:
            continue
        yield (images, labels) if device is None else (images.to(device), labels.to(device))


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
