"""Chains of recoveries by name, "least_squares+bn": their steps, their needs, and `recover`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from randprune.errors import DataError, InvalidInputError, quoted
from randprune.recovery.base import Passes, Recovery, RecoveryContext, recoveries
from randprune.recovery.dense import DenseStatistics, statistics_of
from randprune.space import Selection, Space


def parse(name: str) -> tuple[Recovery, ...]:
    """The recoveries that a name chains: "least_squares+bn" -> two, "none" -> ().

    Raises:
        InvalidInputError: an unknown name (with close matches), or one given twice.
    """
    return tuple(recoveries.create(part) for part in names_of(name))


def names_of(name: str) -> list[str]:
    """The names that a name chains; whether they are known is not looked at.

    Raises:
        InvalidInputError: one is given twice.
    """
    names = [] if name in ("", "none") else [part.strip() for part in name.split("+")]
    if len(set(names)) < len(names):
        raise InvalidInputError(
            f"A recovery is a chain of different steps joined by '+', such as 'least_squares+bn'. "
            f"Got {quoted(name)} instead."
        )
    return names


def quick_form(name: str) -> str:
    """The form of a recovery that every candidate gets: no measured batch-norm statistics.

    "least_squares+bn" -> "least_squares", "bn" -> "bn_closed_form"; others stay.
    """
    steps = [step.name for step in parse(name)]
    if steps == ["bn"]:
        return "bn_closed_form"
    return "+".join(step for step in steps if step != "bn") or "none"


def needs_moments(name: str) -> bool:
    """Whether the recovery works from second moments of the dense network."""
    return any("moments" in step.needs for step in parse(name))


def passes(name: str, calibration: int) -> Passes:
    """What one recovery sends through the network, of `calibration` images at hand."""
    total = Passes()
    for step in parse(name):
        if "data" in step.needs:
            of_step = getattr(step, "passes", Passes)
            total += of_step(calibration)
    return total


def recover(
    small: nn.Module,
    model: nn.Module,
    space: Space,
    selection: Selection,
    recovery: str | Recovery = "least_squares",
    data: Any = None,
    *,
    batch_size: int = 128,
    shared: DenseStatistics | None = None,
) -> nn.Module:
    """`small` itself after a recovery or a chain of them; the dense network is left untouched.

    Args:
        small: the cut network; edited in place.
        model: the dense network that was traced.
        space: its channel groups.
        selection: what `small` keeps.
        recovery: "none", "bn", "least_squares", "sequential", "bn_closed_form", a chain such as
            "least_squares+bn", or an object.
        data: calibration images: an object with `batches(batch_size)` (a data split), a pair of
            tensors (images, labels), or an iterable of batches that can be walked repeatedly.
        batch_size: for data that comes as a split or a pair.
        shared: what several calls on the same dense network and data know of it together, such as
            its moments: one `DenseStatistics(model, space)` for all of them.

    Raises:
        InvalidInputError: unknown recovery, an object that is none, a selection of another space,
            or `shared` of another network.
        DataError: the recovery needs data and none was given.
    """
    space.check_selection(selection)
    if isinstance(recovery, str):
        steps = parse(recovery)
    else:
        steps = (recoveries.named_or_given(recovery, Recovery, "recovery"),)
    shared = statistics_of(model, space, shared)
    context = RecoveryContext(shared, selection, _batches(data, batch_size))
    for step in steps:
        small = step.apply(small, context)
    return small


def _batches(data: Any, batch_size: int) -> Callable[[], Iterable[Any]] | None:
    if data is None:
        return None
    if hasattr(data, "batches"):
        return lambda: data.batches(batch_size)
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor):
        images, labels = data
        return lambda: zip(images.split(batch_size), labels.split(batch_size), strict=True)
    if isinstance(data, Tensor):
        return lambda: torch.split(data, batch_size)
    if not isinstance(data, Iterable):
        raise DataError(
            "The 'data' parameter of recover must be a split, a pair of tensors or an iterable of "
            f"batches. Got {type(data).__name__} instead."
        )
    held = data if hasattr(data, "__len__") else list(data)
    return lambda: held
