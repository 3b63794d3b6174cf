"""Match the dense network's outputs: no labels, no meaning, any structure of outputs.

The distance is the mean, over all tensors of the output that vary, of

    |z - z0|^2 / |z0 - mean z0|^2,

each over a whole batch: 0 is the dense network, 1 is what a constant would give. It is both what
candidates are ranked by and, over the data of the final numbers, what is reported.

Known shortcomings: it says nothing about whether the dense network is right; every tensor counts
the same, whether or not anybody reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from randprune.errors import InvalidInputError
from randprune.graph.trees import floating_leaves, shown
from randprune.tasks.base import Averages, Meter, Metric, tasks

_LEAST = 1e-12


def relative_error(outputs: Any, dense: Any) -> Tensor:
    """Mean relative squared error over the tensors of two outputs of one structure, a scalar.

    Raises:
        InvalidInputError: the structures differ, or there is no tensor.
    """
    ours, theirs = floating_leaves(outputs), floating_leaves(dense)
    if {name: x.shape for name, x in ours.items()} != {name: x.shape for name, x in theirs.items()}:
        raise InvalidInputError(
            f"The outputs {shown(outputs)} are not like those of the dense network, "
            f"{shown(dense)}: their structure or size was changed."
        )
    errors = []
    for name, wanted in theirs.items():
        if not wanted.numel():
            continue
        wanted = wanted.float()
        spread = (wanted - wanted.mean()).square().sum()
        difference = (ours[name].float() - wanted).square().sum()
        # Constants (anchors, sizes) have no spread: equal ones count nothing.
        floor = _LEAST * wanted.square().sum() + torch.finfo(torch.float32).tiny
        if bool(spread > floor) or bool(difference > floor):
            errors.append(difference / torch.maximum(spread, floor))
    if not theirs:
        raise InvalidInputError(f"The network returns no floating-point tensor: {shown(dense)}.")
    return torch.stack(errors).mean() if errors else next(iter(theirs.values())).new_zeros(())


@tasks.register("outputs")
@dataclass(frozen=True)
class Outputs:
    """Give the outputs that the dense network gives."""

    name: ClassVar[str] = "outputs"
    metric: ClassVar[Metric] = Metric("output error", "%", higher_is_better=False)
    needs_targets: ClassVar[bool] = False

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """There is none without the dense network: training uses `distance` to its outputs.

        Raises:
            InvalidInputError: always.
        """
        raise InvalidInputError(
            "The task 'outputs' has no loss of its own: it trains towards the outputs of the dense "
            "network. Name a task, or give `loss`, to train on targets."
        )

    def distance(self, outputs: Any, dense: Any) -> Tensor:
        """See `relative_error`."""
        return relative_error(outputs, dense)

    def meter(self) -> Meter:
        """The mean distance to the dense network's outputs."""

        def measure(outputs: Any, batch: Any, dense: Any) -> float:
            return float(relative_error(outputs, dense))

        return Averages(self, measure)
