"""What one training step computes: the loss of a batch. The loop does all the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from randprune.tasks.classification import logits_of
from randprune.training.teacher import Teacher


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step hands back.

    Attributes:
        loss: scalar, with gradient; mean over the batch.
        logits: (B, K) for the training accuracy; None where the step has none to show.
    """

    loss: Tensor
    logits: Tensor | None = None


@runtime_checkable
class TrainStep(Protocol):
    """Computes the loss of one batch; called once a step, in training mode, under autocast.

    The loop calls backward, clips, steps the optimizer and keeps the books. A step may run the
    network several times (sub-networks of shared weights) and return the sum of the losses.
    """

    def __call__(
        self, model: nn.Module, batch: Any, generator: torch.Generator
    ) -> StepOutput | Tensor:
        """The loss of the batch.

        Args:
            model: the network in training.
            batch: as the data gives it, on the device: (images float32 (B, C, H, W), labels int64
                (B,)), or any other structure.
            generator: a CPU generator seeded by (recipe seed, epoch, step) alone: draw from it and
                an interrupted run continues exactly.
        """
        ...


@runtime_checkable
class AttachedStep(TrainStep, Protocol):
    """A step that works on the loop's own network or optimizer, or has parameters of its own."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What of the step decides the result, JSON-ready: a checkpoint continues only its like."""
        ...

    def attach(self, network: nn.Module, optimizer: Optimizer) -> None:
        """Called once, before the first step, with the loop's copy of the network."""
        ...


@dataclass(frozen=True, slots=True)
class SupervisedStep:
    """Cross-entropy, mixed with the distance to a teacher's softened distribution.

    (1 - w) CE(z, y) + w T^2 KL(softmax(t / T) || softmax(z / T)), with student logits z and teacher
    logits t on the same augmented images (Hinton et al. 2015).

    Attributes:
        label_smoothing: share of the uniform label in CE.
        teacher: the network to learn from, or None.
        distill_weight: w.
        distill_temperature: T.
    """

    label_smoothing: float = 0.0
    teacher: Teacher | None = None
    distill_weight: float = 0.0
    distill_temperature: float = 2.0

    def __call__(self, model: nn.Module, batch: Any, generator: torch.Generator) -> StepOutput:
        """The loss of the batch, and the student's logits."""
        images, labels = batch
        logits = logits_of(model(images), type(model).__name__).float()
        if self.teacher is None or self.distill_weight == 0.0:
            loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            return StepOutput(loss, logits)
        theirs = self.teacher.logits(images)
        heat, weight = self.distill_temperature, self.distill_weight
        divergence = F.kl_div(
            F.log_softmax(logits / heat, dim=1),
            F.log_softmax(theirs / heat, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        loss = weight * heat**2 * divergence
        if weight < 1.0:
            hard = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            loss = loss + (1.0 - weight) * hard
        return StepOutput(loss, logits)
