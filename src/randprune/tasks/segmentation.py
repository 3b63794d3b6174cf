"""One class a pixel: cross-entropy, mean intersection over union, divergence pixel by pixel."""

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

IGNORED = 255


@tasks.register("segmentation")
@dataclass(frozen=True)
class Segmentation:
    """Which of K classes each place has.

    Outputs are logits (B, K, H, W), or a structure whose "out" or "logits" they are; coarser ones
    are interpolated to the size of the targets, int64 (B, H, W).

    Args:
        ignore: the target of places that do not count.
    """

    ignore: int = IGNORED
    name: ClassVar[str] = "segmentation"
    metric: ClassVar[Metric] = Metric("mean IoU", "%")
    needs_targets: ClassVar[bool] = True

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """Cross-entropy, mean over the places that count, in nats."""
        logits, target = self._pair(outputs, batch)
        return F.cross_entropy(logits, target, ignore_index=self.ignore)

    def distance(self, outputs: Any, dense: Any) -> Tensor:
        """KL(dense || network) of the class probabilities, mean over places, in nats."""
        ours, theirs = (prediction_of(o, self.name).float() for o in (outputs, dense))
        if ours.shape != theirs.shape:
            raise InvalidInputError(
                f"The network gives logits {tuple(ours.shape)}, the dense network "
                f"{tuple(theirs.shape)}: the number of outputs was changed."
            )
        ours, theirs = F.log_softmax(ours, dim=1), F.log_softmax(theirs, dim=1)
        return (theirs.exp() * (theirs - ours)).sum(dim=1).mean().clamp_min(0.0)

    def meter(self) -> Meter:
        """Mean over the classes that occur of intersection over union, over all places."""
        counts: list[Tensor] = []

        def measure(outputs: Any, batch: Any, dense: Any) -> None:
            logits, target = self._pair(outputs, batch)
            counts.append(confusion(logits.argmax(dim=1), target, logits.shape[1], self.ignore))

        return Averages(self, measure, lambda: mean_iou(torch.stack(counts).sum(dim=0)))

    def _pair(self, outputs: Any, batch: Any) -> tuple[Tensor, Tensor]:
        logits, target = prediction_of(outputs, self.name), target_of(batch)
        if target.ndim == logits.ndim and target.shape[1] == 1:
            target = target[:, 0]
        if target.is_floating_point() or logits.ndim < 3 or target.ndim != logits.ndim - 1:
            raise DataError(
                f"Segmentation needs integer targets (B, H, W) for logits (B, K, H, W). Got "
                f"{shown(target)} for {shown(logits)}."
            )
        target = target.to(logits.device).long()
        known = target[target != self.ignore]
        if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < logits.shape[1]:
            raise DataError(
                f"Targets must lie within 0..{logits.shape[1] - 1}, the outputs of the network, or "
                f"be {self.ignore}, which does not count. Got {int(known.min())}.."
                f"{int(known.max())}. Set the task's option 'ignore'."
            )
        if logits.shape[2:] != target.shape[1:]:
            size = list(target.shape[1:])
            mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
            logits = F.interpolate(logits.float(), size=size, mode=mode, align_corners=False)
        return logits.float(), target


def confusion(found: Tensor, target: Tensor, classes: int, ignore: int) -> Tensor:
    """How many places of each class (rows) are taken for each (columns), int64 (K, K)."""
    counts = target != ignore
    pairs = target[counts] * classes + found[counts]
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).cpu()


def mean_iou(counts: Tensor) -> float:
    """Mean intersection over union of the classes that occur or are named, of a confusion matrix.

    Raises:
        DataError: no place counts.
    """
    both = counts.diagonal().double()
    either = counts.sum(dim=0) + counts.sum(dim=1) - counts.diagonal()
    known = either > 0
    if not bool(known.any()):
        raise DataError("No place of the targets counts: all of them are ignored.")
    return float((both[known] / either[known]).mean())
