"""Numbers: squared error, mean absolute error, and the relative error of the predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from randprune.errors import DataError
from randprune.graph.trees import shown
from randprune.tasks.base import Averages, Meter, Metric, tasks
from randprune.tasks.outputs import relative_error
from randprune.tasks.targets import prediction_of, target_of


@tasks.register("regression")
@dataclass(frozen=True)
class Regression:
    """One number a sample, or several.

    Outputs and targets have one shape, (B,) and (B, 1) alike.

    Args:
        unit: of the numbers, such as "years".
    """

    unit: str = ""
    name: ClassVar[str] = "regression"
    needs_targets: ClassVar[bool] = True

    @property
    def metric(self) -> Metric:
        """Mean absolute error."""
        return Metric("mean absolute error", self.unit, higher_is_better=False)

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(*_pair(outputs, batch))

    def distance(self, outputs: Any, dense: Any) -> Tensor:
        """Squared difference to the dense predictions over their variance."""
        return relative_error(*(prediction_of(o, self.name) for o in (outputs, dense)))

    def meter(self) -> Meter:
        """Mean absolute error over samples."""

        def measure(outputs: Any, batch: Any, dense: Any) -> float:
            return float(F.l1_loss(*_pair(outputs, batch)))

        return Averages(self, measure)


def _pair(outputs: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """Predictions and targets, float32, of one shape."""
    found, target = prediction_of(outputs, "regression"), target_of(batch)
    flat = [x.flatten(1) if x.ndim > 1 else x[:, None] for x in (found, target)]
    if flat[0].shape != flat[1].shape:
        raise DataError(
            f"The targets {shown(target)} are not like the predictions {shown(found)}. Give one "
            "number for each that the network gives."
        )
    return flat[0].float(), flat[1].to(found.device).float()
