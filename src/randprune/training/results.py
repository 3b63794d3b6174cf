"""What a training run reports while it goes on, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """Where a run stands, for a progress bar.

    Attributes:
        epoch, epochs: the current epoch, from 1, of how many.
        step, steps: steps done in it, of how many.
        loss: mean of the epoch so far.
        images_per_second: of this call so far.
        seconds: spent in this call.
        remaining_seconds: until the run ends, at the speed so far.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_second: float
    seconds: float
    remaining_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class TrainResult:
    """A trained network and what it cost.

    Attributes:
        model: a new module on the device and with the training flags of the one given, float32.
        history: one JSON-ready dict an epoch: epoch (from 1), loss (mean), train_accuracy (of the
            augmented batches; None where the step shows no logits), lr (of the last step), seconds
            (without evaluation), images; with an evaluator also accuracy and eval_loss.
        seconds: wall time over all calls that made up the run.
        images_forward, images_backward: images that went through the network.
        images_teacher: images that went through the teacher; remembered ones do not count.
        precision: "float32" or "bfloat16".
        device: where it ran.
        epochs_resumed: whole epochs that were taken from the checkpoint.
    """

    model: nn.Module
    history: list[dict[str, Any]]
    seconds: float
    images_forward: int
    images_backward: int
    images_teacher: int
    precision: str
    device: str
    epochs_resumed: int
