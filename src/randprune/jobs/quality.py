"""What a candidate is worth: how far its outputs are from the dense network's, and how often right.

Pre-trained networks have often seen all training images and are right on every one of them, so
that accuracy on held-out training images saturates. The divergence from the dense network's
outputs does not, and needs no labels: it ranks candidates by default.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from randprune.errors import InvalidInputError
from randprune.evaluate import Evaluator
from randprune.store import Accuracy

RankBy = Literal["kl", "loss", "accuracy"]


@dataclass(frozen=True, slots=True)
class Quality:
    """A network's outputs on the judge's images.

    Attributes:
        correct, images: how many of the images are classified right.
        loss: mean cross-entropy with the labels, in nats.
        kl: mean KL(dense || network) of the class probabilities, in nats; None where there is no
            dense network.
        seconds: wall time of the evaluation.
    """

    correct: int
    images: int
    loss: float
    kl: float | None
    seconds: float

    @property
    def accuracy(self) -> Accuracy:
        """As counts."""
        return Accuracy(self.correct, self.images)

    def value(self, rank_by: RankBy) -> float:
        """The number that candidates are ranked by, higher = better."""
        values = {"loss": -self.loss, "accuracy": self.correct / self.images}
        if self.kl is not None:
            values["kl"] = -self.kl
        return values[rank_by]


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Measures networks on one split against the dense network's logits there.

    Attributes:
        evaluator: runs networks on the split.
        dense_logits: of the dense network on the split, float32 (N, K); None where there is none.
    """

    evaluator: Evaluator
    dense_logits: Tensor | None = None

    def quality(self, network: nn.Module, name: str = "") -> Quality:
        """How the network does; it is not modified.

        Raises:
            DataError: its logits are not finite.
            InvalidInputError: its outputs are no logits like the dense network's.
        """
        start = time.perf_counter()
        logits = self.evaluator.logits(network, name=name)
        if self.dense_logits is not None and logits.shape != self.dense_logits.shape:
            raise InvalidInputError(
                f"{name or type(network).__name__} gives logits {tuple(logits.shape)}, the dense "
                f"network {tuple(self.dense_logits.shape)}: the number of outputs was changed."
            )
        return quality_of(
            logits, self.dense_logits, self.evaluator.split.labels, time.perf_counter() - start
        )


def quality_of(
    logits: Tensor, dense_logits: Tensor | None, labels: Tensor, seconds: float
) -> Quality:
    """The quality of logits (N, K) beside the dense network's, for labels int64 (N,)."""
    ours = F.log_softmax(logits.double(), dim=1)
    divergence = None
    if dense_logits is not None:
        theirs = F.log_softmax(dense_logits.double(), dim=1)
        found = F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        divergence = max(0.0, float(found))
    return Quality(
        correct=int((logits.argmax(dim=1) == labels).sum()),
        images=len(labels),
        loss=float(F.nll_loss(ours, labels)),
        kl=divergence,
        seconds=seconds,
    )
