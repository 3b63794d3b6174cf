"""One class a sample: cross-entropy, accuracy, and the divergence of the class probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from randprune.errors import DataError, InvalidInputError
from randprune.graph.trees import shown
from randprune.tasks.base import Meter, Metric, Quality, tasks
from randprune.tasks.targets import prediction_of, target_of

ACCURACY = Metric("accuracy", "%")


def logits_of(output: Any, model: str) -> Tensor:
    """The logits (B, K) in what a network returned: a tensor, or the main one of a structure.

    Raises:
        InvalidInputError: there is no 2-d tensor.
    """
    try:
        first = prediction_of(output, "classification")
    except InvalidInputError:
        first = None
    if isinstance(first, Tensor) and first.ndim == 2:
        return first
    got = f"shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(output).__name__
    raise InvalidInputError(
        f"{model} must return logits of shape (B, K), one row per image. Got {got} instead. "
        "Wrap the network in a module that returns the logits alone."
    )


def divergence(logits: Tensor, dense: Tensor) -> Tensor:
    """Mean KL(dense || network) of the class probabilities of logits (B, K), in nats, a scalar.

    Raises:
        InvalidInputError: the shapes differ.
    """
    if logits.shape != dense.shape:
        raise InvalidInputError(
            f"The network gives logits {tuple(logits.shape)}, the dense network "
            f"{tuple(dense.shape)}: the number of outputs was changed."
        )
    ours, theirs = F.log_softmax(logits.double(), dim=1), F.log_softmax(dense.double(), dim=1)
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True).clamp_min(0.0)


@tasks.register("classification")
@dataclass(frozen=True)
class Classification:
    """Which of K classes a sample has.

    Outputs are logits (B, K), or a structure whose "logits" or first tensor they are; targets are
    int64 (B,).
    """

    name: ClassVar[str] = "classification"
    metric: ClassVar[Metric] = ACCURACY
    needs_targets: ClassVar[bool] = True

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """Cross-entropy, in nats."""
        logits = logits_of(outputs, "The network")
        return F.cross_entropy(logits.float(), class_indices(target_of(batch), logits))

    def distance(self, outputs: Any, dense: Any) -> Tensor:
        """KL(dense || network), in nats."""
        return divergence(*(logits_of(o, "The network") for o in (outputs, dense)))

    def meter(self) -> Meter:
        """Counts right answers; see `ClassificationMeter`."""
        return ClassificationMeter()


@dataclass(slots=True, eq=False)
class ClassificationMeter:
    """Gathers logits and labels, and looks at all of them at once in float64."""

    _logits: list[Tensor] = field(default_factory=list)
    _dense: list[Tensor] = field(default_factory=list)
    _labels: list[Tensor] = field(default_factory=list)

    def update(self, outputs: Any, batch: Any, dense: Any | None) -> None:
        """See `Meter`."""
        logits = logits_of(outputs, "The network")
        self._labels.append(class_indices(target_of(batch), logits).cpu())
        self._logits.append(logits.cpu())
        if dense is not None:
            self._dense.append(logits_of(dense, "The dense network").cpu())

    def result(self) -> Quality:
        """See `Meter`."""
        if not self._logits:
            raise DataError("No samples were measured: the data is empty.")
        logits, labels = torch.cat(self._logits), torch.cat(self._labels)
        bad = ~torch.isfinite(logits).all(dim=1)
        if bool(bad.any()):
            raise DataError(
                f"The logits are not finite for {int(bad.sum())} of {len(bad)} samples (first: "
                f"{int(bad.nonzero()[0])}). Check the weights and batch-norm statistics."
            )
        correct = int((logits.argmax(dim=1) == labels).sum())
        distance = None
        if self._dense:
            distance = float(divergence(logits, torch.cat(self._dense)))
        loss = float(F.nll_loss(F.log_softmax(logits.double(), dim=1), labels))
        return Quality(correct / len(labels), len(labels), correct, loss, distance)


def class_indices(target: Tensor, logits: Tensor) -> Tensor:
    """`target` as int64 (B,) within 0..K-1.

    Raises:
        DataError: it is something else.
    """
    if target.is_floating_point() or target.dtype == torch.bool or target.shape != logits.shape[:1]:
        raise DataError(
            f"Classification needs integer class indices of shape ({len(logits)},). "
            f"Got {shown(target)} instead."
        )
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < logits.shape[1]:
        raise DataError(
            f"Class indices must lie within 0..{logits.shape[1] - 1}, the outputs of the network. "
            f"Got {int(target.min())}..{int(target.max())} instead."
        )
    return target.long()
