"""A task of one's own: a loss and a metric that are functions, or a torchmetrics metric."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from randprune.errors import DataError, InvalidInputError, RandpruneError, quoted
from randprune.graph.trees import shown
from randprune.memory import memory_errors
from randprune.tasks.base import Averages, Meter, Metric, Task, as_loss
from randprune.tasks.outputs import Outputs
from randprune.tasks.targets import prediction_of, target_of

Function = Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class Given:
    """What the caller's functions say; distances are those of `base`.

    Args:
        base: the task whose loss, metric and distance stand in for what is not given.
        function: (outputs, batch) -> scalar tensor, the mean over the batch; None: that of `base`.
        measure: (outputs, batch) -> number, averaged over samples, or an object with `update`,
            `compute` and `reset`, such as a torchmetrics metric, which is updated with the
            prediction and the target; None: that of `base`.
        higher_is_better: the direction of `measure`; None: as the metric itself says.
    """

    base: Task
    function: Function | None = None
    measure: Any = None
    higher_is_better: bool | None = None
    name: ClassVar[str] = "given"

    def __repr__(self) -> str:
        """The names of what was given, the same in every process."""
        parts = [self.base.name]
        for what, function in (("loss", self.function), ("metric", self.measure)):
            if function is not None:
                parts.append(
                    f"{what}={getattr(function, '__module__', '')}.{function_name(function)}"
                )
        return f"Given({', '.join(parts)})"

    @property
    def needs_targets(self) -> bool:
        """Whether there is a loss."""
        return self.function is not None or self.base.needs_targets

    @property
    def metric(self) -> Metric:
        """Of the metric given, else the loss given."""
        if self.measure is None:
            if self.function is None:
                return self.base.metric
            return Metric(function_name(self.function), higher_is_better=False)
        direction = self.higher_is_better
        if direction is None:
            direction = getattr(self.measure, "higher_is_better", None)
        if direction is None:
            raise InvalidInputError(
                f"Whether more of the metric {function_name(self.measure)!r} is better is not "
                "known. Give higher_is_better=True or False."
            )
        return Metric(function_name(self.measure), higher_is_better=bool(direction))

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """What the function gives.

        Raises:
            DataError: no scalar, or an error of the function's own.
        """
        if self.function is None:
            return self.base.loss(outputs, batch)
        value = _called(self.function, "loss", outputs, batch)
        return as_loss(value, f"{function_name(self.function)!r}")

    def distance(self, outputs: Any, dense: Any) -> Tensor:
        """That of the base."""
        return self.base.distance(outputs, dense)

    def meter(self) -> Meter:
        """What the metric says over all batches, or its mean over samples."""
        if self.measure is None and self.function is None:
            return self.base.meter()
        if hasattr(self.measure, "update") and hasattr(self.measure, "compute"):
            return self._accumulated(copy.deepcopy(self.measure))
        if self.measure is None:
            return Averages(self, lambda outputs, batch, dense: float(self.loss(outputs, batch)))
        function = self.measure

        def measure(outputs: Any, batch: Any, dense: Any) -> float:
            value = _called(function, "metric", outputs, batch)
            return _number(value, function_name(function))

        return Averages(self, measure)

    def _accumulated(self, metric: Any) -> Meter:
        metric.reset()

        def update(outputs: Any, batch: Any, dense: Any) -> None:
            # Outputs were made in inference mode, which such a metric's states must not depend on.
            found, target = prediction_of(outputs, "given").clone(), target_of(batch)
            metric.update(found.cpu(), target.cpu())

        return Averages(self, update, lambda: _number(metric.compute(), function_name(metric)))


def _called(function: Function, what: str, outputs: Any, batch: Any) -> Any:
    """What the caller's function gives; an error of its own says with which values."""
    try:
        with memory_errors():
            return function(outputs, batch)
    except RandpruneError:
        raise
    except Exception as error:
        raise DataError(
            f"The {what} {function_name(function)!r} failed with {type(error).__name__}: {error}. "
            f"It got outputs {shown(outputs)} and the batch {shown(batch)}."
        ) from error


def task_of(task: Task, loss: Function | None, metric: Any, higher_is_better: bool | None) -> Task:
    """`task` with the caller's functions in place of its own.

    Raises:
        InvalidInputError: a loss or a metric that cannot be called, or a metric whose direction is
            not known.
    """
    if loss is None and metric is None:
        if higher_is_better is not None:
            raise InvalidInputError("higher_is_better says the direction of a metric. Give metric.")
        return task
    if loss is not None and not callable(loss):
        raise InvalidInputError(
            f"The 'loss' parameter must be callable. Got {quoted(loss)} instead."
        )
    accumulates = hasattr(metric, "update") and hasattr(metric, "compute")
    if metric is not None and not callable(metric) and not accumulates:
        raise InvalidInputError(
            f"The 'metric' parameter must be callable, or have update and compute. "
            f"Got {quoted(metric)} instead."
        )
    # Without a name, a task knows how to match outputs and nothing else.
    given = Given(task if task is not None else Outputs(), loss, metric, higher_is_better)
    _ = given.metric
    return given


def function_name(function: Any) -> str:
    """What people call a function or an object, without its address."""
    return getattr(function, "__name__", type(function).__name__)


def _number(value: Any, name: str) -> float:
    """A metric's value as a number.

    Raises:
        DataError: it is none.
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
        raise DataError(f"The metric {name!r} must give a number. Got {got} instead.") from error
