"""Where a batch holds what is right, and where an output holds the prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from randprune.errors import DataError, InvalidInputError
from randprune.graph.call import TARGETS
from randprune.graph.trees import floating_leaves, shown

_PREDICTIONS = ("logits", "out", "prediction", "predictions")


def target_of(batch: Any) -> Tensor:
    """The targets of a batch: the last part of a tuple, or the key "labels", "target", "mask", ...

    Raises:
        DataError: the batch has no tensor of targets.
    """
    found: Any = None
    if isinstance(batch, Mapping):
        found = next((batch[name] for name in TARGETS if name in batch), None)
    elif isinstance(batch, tuple | list) and len(batch) > 1:
        found = batch[-1]
        if isinstance(found, Mapping):
            found = next((found[name] for name in TARGETS if name in found), None)
    else:
        found = next((getattr(batch, name) for name in TARGETS if hasattr(batch, name)), None)
    if isinstance(found, Tensor):
        return found
    raise DataError(
        f"The batch has no targets: {shown(batch)}. Give (input, target) pairs, or a mapping with "
        "the key 'labels' or 'target'; or use the task 'outputs', which needs none."
    )


def prediction_of(outputs: Any, task: str) -> Tensor:
    """The tensor that a task reads: the output itself, its "logits" or "out", or its first tensor.

    Raises:
        InvalidInputError: there is no floating-point tensor.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        for name in _PREDICTIONS:
            if isinstance(outputs.get(name), Tensor):
                return outputs[name]  # type: ignore[no-any-return]
    first = next(iter(floating_leaves(outputs).values()), None)
    if first is None:
        raise InvalidInputError(
            f"The task {task!r} needs a network that returns a tensor. Got {shown(outputs)} "
            "instead."
        )
    return first
