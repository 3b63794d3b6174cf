"""What a task is: the meaning of a network's outputs.

The engine knows tensors, not classes. A task says what training minimises (`loss`), how far the
outputs of two networks are apart (`distance`, without labels), and what people are told (`meter`,
whose number has a name, a unit and a direction). One task a file; `randprune.testing.check_task`
is the conformance suite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from randprune.errors import DataError
from randprune.graph.trees import count_of
from randprune.registry import Registry


@dataclass(frozen=True, slots=True)
class Metric:
    """What a task's number is called, and which direction is better.

    Attributes:
        name: such as "accuracy" or "mean IoU".
        unit: "%" for shares, which are kept in [0, 1] and shown times 100; "" for a plain number.
        higher_is_better: whether more of it is better.
    """

    name: str
    unit: str = ""
    higher_is_better: bool = True

    def score(self, value: float) -> float:
        """The value as a score: higher is better."""
        return value if self.higher_is_better else -value

    def shown(self, value: float, digits: int = 2) -> str:
        """The value as people read it, with its unit."""
        if self.unit == "%":
            return f"{100 * value:.{digits}f} %"
        return f"{value:.{digits + 2}g} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Quality:
    """What one network's outputs on a data set are worth.

    Attributes:
        value: of the task's metric.
        samples: how many were looked at.
        correct: where the metric counts right answers, how many of the samples are right.
        loss: mean of the task's loss; None where there are no targets.
        distance: mean distance to the dense network's outputs; None where these are not known.
    """

    value: float
    samples: int
    correct: int | None = None
    loss: float | None = None
    distance: float | None = None


@runtime_checkable
class Meter(Protocol):
    """Measures one network on one data set."""

    def update(self, outputs: Any, batch: Any, dense: Any | None) -> None:
        """Look at one batch.

        Args:
            outputs: of the network, float32.
            batch: as the data gave it.
            dense: outputs of the dense network on the same batch; None where they are not known.
        """
        ...

    def result(self) -> Quality:
        """What was measured."""
        ...


@runtime_checkable
class Task(Protocol):
    """What a network is for. Constructors only store arguments."""

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    @property
    def metric(self) -> Metric:
        """What the meter's value is called."""
        ...

    @property
    def needs_targets(self) -> bool:
        """Whether a batch has to say what is right."""
        ...

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """What training minimises: a scalar with gradient, the mean over the batch."""
        ...

    def distance(self, outputs: Any, dense: Any) -> Tensor:
        """How far outputs are from those of the dense network: a scalar at least 0, no labels."""
        ...

    def meter(self) -> Meter:
        """A new meter."""
        ...


tasks: Registry[Task] = Registry("task", "randprune.tasks")


@dataclass(slots=True, eq=False)
class Averages:
    """A meter of means over samples, in float64.

    Attributes:
        task: gives the loss and the distance.
        compute: what has been measured at the end; see `measure`.
        measure: (outputs, batch, dense) of one batch; what it returns is averaged over samples
            where there is no `compute`.
    """

    task: Task
    measure: Callable[[Any, Any, Any], float | None]
    compute: Callable[[], float] | None = None
    samples: int = 0
    _loss: float = 0.0
    _distance: float = 0.0
    _value: float = 0.0
    _seen: set[str] = field(default_factory=set)

    def update(self, outputs: Any, batch: Any, dense: Any | None) -> None:
        """See `Meter`."""
        count = count_of(outputs)
        self.samples += count
        if self.task.needs_targets:
            self._loss += count * float(self.task.loss(outputs, batch))
            self._seen.add("loss")
        if dense is not None:
            self._distance += count * float(self.task.distance(outputs, dense))
            self._seen.add("distance")
        found = self.measure(outputs, batch, dense)
        if found is not None:
            self._value += count * float(found)

    def result(self) -> Quality:
        """See `Meter`.

        Raises:
            DataError: nothing was measured, or a number is not finite.
        """
        if not self.samples:
            raise DataError("No samples were measured: the data is empty.")
        value = self.compute() if self.compute is not None else self._value / self.samples
        loss = self._loss / self.samples if "loss" in self._seen else None
        distance = self._distance / self.samples if "distance" in self._seen else None
        metric = self.task.metric.name
        for what, number in ((f"metric {metric!r}", value), ("loss", loss), ("distance", distance)):
            if number is not None and not math.isfinite(number):
                raise DataError(
                    f"The {what} of the task {self.task.name!r} is {number} over {self.samples} "
                    "samples. Check the outputs of the network, the targets, and the function."
                )
        return Quality(float(value), self.samples, None, loss, distance)


def as_loss(value: Any, where: str) -> Tensor:
    """`value` if it is a loss.

    Raises:
        DataError: it is no scalar tensor.
    """
    if isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point():
        return value.reshape(())
    got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise DataError(
        f"The loss of {where} must be a scalar tensor, the mean over the batch. Got {got} instead."
    )
