"""Any number of labels a sample: binary cross-entropy, and mean average precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from randprune.errors import DataError, InvalidInputError
from randprune.graph.trees import shown
from randprune.tasks.base import Averages, Meter, Metric, tasks
from randprune.tasks.targets import prediction_of, target_of


@tasks.register("multi_label")
@dataclass(frozen=True)
class MultiLabel:
    """Which of K labels a sample has, each or none of them.

    Outputs are logits (B, K), targets 0 or 1 (B, K).
    """

    name: ClassVar[str] = "multi_label"
    metric: ClassVar[Metric] = Metric("mean average precision", "%")
    needs_targets: ClassVar[bool] = True

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """Binary cross-entropy, mean over samples and labels, in nats."""
        return F.binary_cross_entropy_with_logits(*_pair(outputs, batch))

    def distance(self, outputs: Any, dense: Any) -> Tensor:
        """KL(dense || network) of each label's probability, summed over labels, in nats."""
        ours, theirs = (prediction_of(o, self.name).double() for o in (outputs, dense))
        if ours.shape != theirs.shape:
            raise InvalidInputError(
                f"The network gives logits {tuple(ours.shape)}, the dense network "
                f"{tuple(theirs.shape)}: the number of outputs was changed."
            )
        there, absent = theirs.sigmoid(), (-theirs).sigmoid()
        kept = there * (F.logsigmoid(theirs) - F.logsigmoid(ours))
        lost = absent * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
        return (kept + lost).flatten(1).sum(dim=1).mean().clamp_min(0.0)

    def meter(self) -> Meter:
        """Average precision of each label that any sample has, mean over labels."""
        scores: list[Tensor] = []
        targets: list[Tensor] = []

        def measure(outputs: Any, batch: Any, dense: Any) -> None:
            found, wanted = _pair(outputs, batch)
            scores.append(found.cpu())
            targets.append(wanted.cpu() > 0)

        return Averages(
            self, measure, lambda: mean_average_precision(torch.cat(scores), torch.cat(targets))
        )


def mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """Mean over labels of the mean precision at each right sample; both (N, K).

    Raises:
        DataError: no sample has any label.
    """
    order = scores.argsort(dim=0, descending=True, stable=True)
    right = targets.gather(0, order).double()
    ranks = torch.arange(1, len(scores) + 1, dtype=torch.float64)[:, None]
    precision = right.cumsum(dim=0) / ranks
    counts = right.sum(dim=0)
    known = counts > 0
    if not bool(known.any()):
        raise DataError("No sample has any label, so there is no average precision.")
    return float(((precision * right).sum(dim=0)[known] / counts[known]).mean())


def _pair(outputs: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """Logits and targets, float32 (B, K)."""
    found, target = prediction_of(outputs, "multi_label"), target_of(batch)
    if found.shape != target.shape:
        raise DataError(
            f"The targets {shown(target)} are not like the logits {shown(found)}. Give 0 or 1 for "
            "each label of each sample."
        )
    return found.float(), target.to(found.device).float()
