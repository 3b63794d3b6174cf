"""What a candidate is worth: how far its outputs are from the dense network's, and how good.

Pre-trained networks have often seen all training images and are right on every one of them, so
that accuracy on held-out training images saturates. The distance from the dense network's outputs
does not, and needs no labels: it ranks candidates by default.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from randprune.errors import DataError
from randprune.evaluate import Evaluator
from randprune.graph.trees import count_of, floating_leaves
from randprune.store import Accuracy, Measured
from randprune.tasks import Metric, Quality as TaskQuality, Task

RankBy = Literal["kl", "loss", "accuracy"]
"""By the distance to the dense network's outputs (kl, for class probabilities), the task's loss, or
its metric (accuracy, for classes)."""


@dataclass(frozen=True, slots=True)
class Quality:
    """A network's outputs on the judge's samples.

    Attributes:
        measured: by the task.
        metric: what the measured value is.
        seconds: wall time of the evaluation.
    """

    measured: TaskQuality
    metric: Metric
    seconds: float

    @property
    def samples(self) -> int:
        """How many were looked at."""
        return self.measured.samples

    @property
    def result(self) -> Accuracy | Measured:
        """The metric's value as records hold it: counts where right answers are counted."""
        return result_of(self.measured)

    @property
    def accuracy(self) -> Accuracy:
        """The result where right answers are counted.

        Raises:
            DataError: they are not.
        """
        return accuracy_of(self.result)

    @property
    def scores(self) -> Mapping[RankBy, float]:
        """What is known, by what ranks; higher = better."""
        found: dict[RankBy, float] = {"accuracy": self.metric.score(self.measured.value)}
        if self.measured.loss is not None:
            found["loss"] = -self.measured.loss
        if self.measured.distance is not None:
            found["kl"] = -self.measured.distance
        return found


def result_of(measured: TaskQuality) -> Accuracy | Measured:
    """What a task measured as records hold it."""
    if measured.correct is not None:
        return Accuracy(measured.correct, measured.samples)
    return Measured(measured.value, measured.samples)


def accuracy_of(result: Accuracy | Measured) -> Accuracy:
    """`result` itself, where right answers are counted.

    Raises:
        DataError: they are not.
    """
    if isinstance(result, Accuracy):
        return result
    raise DataError("Right answers are not counted here: the task is not classification.")


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Measures networks on one split against the dense network's outputs there.

    Attributes:
        evaluator: runs networks on the split.
        task: says what outputs are worth.
        dense: outputs of the dense network, one batch of the evaluator each; None: there are none.
        network: the dense network where its outputs take too much memory to be held.
    """

    evaluator: Evaluator
    task: Task
    dense: Sequence[Any] | None = None
    network: nn.Module | None = None

    def quality(
        self,
        network: nn.Module,
        name: str = "",
        goes_on: Callable[[int, Callable[[], Quality]], bool] | None = None,
    ) -> Quality:
        """How the network does; it is not modified.

        Args:
            network: of the task.
            name: what messages call it.
            goes_on: is told after each batch how many samples were seen, may ask how the network
                did on them, and says whether to look at more.

        Raises:
            DataError: its outputs are not finite, or the metric or the loss is not.
            InvalidInputError: its outputs are none for this task, or not like the dense network's.
        """
        start, meter = time.perf_counter(), self.task.meter()
        dense, seen = self._dense(), 0

        def so_far() -> Quality:
            return Quality(meter.result(), self.task.metric, time.perf_counter() - start)

        for outputs, batch in self.evaluator.outputs(network):
            meter.update(outputs, batch, next(dense, None))
            seen += count_of(outputs)
            if goes_on is not None and not goes_on(seen, so_far):
                break
        return so_far()

    def dense_result(self, network: nn.Module) -> Accuracy | Measured:
        """How the dense network does, by the outputs that are known of it."""
        if self.dense is None:
            return self.quality(network).result
        meter = self.task.meter()
        batches = self.evaluator.batches(network)
        for batch, outputs in zip(batches, self.dense, strict=True):
            meter.update(outputs, batch, outputs)
        return result_of(meter.result())

    def _dense(self) -> Iterator[Any]:
        if self.dense is not None:
            yield from self.dense
        elif self.network is not None:
            yield from (outputs for outputs, _ in self.evaluator.outputs(self.network))


OUTPUT_BYTES = 512 << 20
"""A network's outputs are held up to this size, and computed beside each other network above."""


def outputs_of(evaluator: Evaluator, network: nn.Module) -> list[Any] | None:
    """A network's outputs by batch, as they are kept; None where they take too much memory."""
    every: list[Any] = []
    size = 0
    for outputs, _ in evaluator.outputs(network):
        every.append(flat_outputs(outputs))
        size += sum(leaf.nbytes for leaf in floating_leaves(every[-1]).values())
        if size > OUTPUT_BYTES:
            return None
    return every


def flat_outputs(outputs: Any) -> Any:
    """Outputs as they are kept: a tensor alone, or a plain dict of tensors by place, on the CPU."""
    leaves = {place: leaf.cpu().clone() for place, leaf in floating_leaves(outputs).items()}
    return leaves[""] if list(leaves) == [""] else leaves


def kept_outputs(batches: Sequence[Any]) -> dict[str, Tensor]:
    """Flat outputs of batches as named tensors, which `read_outputs` reads."""
    return {
        f"{number:06d}/{place}": leaf
        for number, outputs in enumerate(batches)
        for place, leaf in floating_leaves(outputs).items()
    }


def read_outputs(tensors: Mapping[str, Tensor]) -> list[Any]:
    """What `kept_outputs` made tensors of."""
    batches: dict[str, dict[str, Tensor]] = {}
    for name in sorted(tensors):
        number, _, place = name.partition("/")
        batches.setdefault(number, {})[place] = tensors[name]
    return [leaves[""] if list(leaves) == [""] else leaves for leaves in batches.values()]
