"""How to train: one validated, immutable set of numbers that a TOML file or a flag can name."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from randprune.errors import InvalidInputError, quoted

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "constant"]
TrainPrecision = Literal["auto", "float32", "bfloat16"]


class TrainRecipe(BaseModel):
    """A training recipe. Every field is a key of `[finetune]`-like tables in recipe files.

    The same recipe, network, data and machine give the same weights, bit for bit, whether or not
    the run was interrupted: the order of images, their augmentation and dropout come from `seed`
    and the position in the run, never from global random state.

    Raises:
        InvalidInputError: unknown fields or values out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(3, ge=0, le=1_000_000, description="passes over the training images")
    batch_size: int = Field(
        128,
        ge=1,
        description="images per step, over all processes (a smaller last batch is left out)",
    )
    optimizer: Optimizer = Field("sgd", description="sgd or adamw")
    lr: float = Field(0.01, gt=0.0, description="peak learning rate")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="of sgd; adamw's first beta")
    nesterov: bool = Field(True, description="Nesterov momentum (sgd)")
    weight_decay: float = Field(5e-4, ge=0.0, description="L2 (sgd) or decoupled (adamw) decay")
    decay_norm_and_bias: bool = Field(
        False, description="also decay norms and biases (parameters with one axis)"
    )
    warmup_epochs: float = Field(0.0, ge=0.0, description="linear warm-up from 0 to lr, in epochs")
    schedule: Schedule = Field("cosine", description="cosine to 0, or constant, after the warm-up")
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0, description="share of the uniform label")
    distill_weight: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="weight in the loss of the divergence (KL) from the teacher's outputs",
    )
    distill_temperature: float = Field(2.0, gt=0.0, description="softens both distributions")
    precision: TrainPrecision = Field(
        "auto", description="auto: bfloat16 autocast where the hardware has it, else float32"
    )
    channels_last: bool = Field(True, description="memory order of images and weights")
    augment: bool = Field(True, description="random crops and flips, as the split defines them")
    ema_decay: float | None = Field(
        None,
        gt=0.0,
        lt=1.0,
        description="decay of a running average of the weights, which is then the result",
    )
    grad_clip: float | None = Field(None, gt=0.0, description="largest norm of the gradient")
    seed: int = Field(0, ge=0, description="order, augmentation and dropout")

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InvalidInputError(_message(error)) from None

    @model_validator(mode="after")
    def _fits_together(self) -> TrainRecipe:
        if self.nesterov and self.optimizer == "sgd" and self.momentum == 0.0:
            raise ValueError("nesterov needs momentum above 0; set nesterov=False")
        if self.epochs and self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs:g}) must not exceed epochs ({self.epochs})"
            )
        return self

    def replace(self, **changes: Any) -> TrainRecipe:
        """The same recipe with some fields changed, validated again."""
        return TrainRecipe(**{**self.model_dump(), **changes})

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of step `step`, counted over the whole run from 0.

        Warm-up ends at `lr`; the cosine ends just above 0 at the last step.
        """
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return self.lr * (step + 1) / (warmup + 1)
        if self.schedule == "constant":
            return self.lr
        rest = max(1.0, self.epochs * steps_per_epoch - warmup)
        return 0.5 * self.lr * (1.0 + math.cos(math.pi * (step - warmup) / rest))


def _message(error: ValidationError) -> str:
    """All problems, in the package's words."""
    lines = []
    for problem in error.errors(include_url=False):
        field = ".".join(str(part) for part in problem["loc"])
        reason = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            known = ", ".join(TrainRecipe.model_fields)
            lines.append(f"TrainRecipe has no field {field!r}; it has {known}.")
        elif field:
            reason = reason.removeprefix("Input should be ")
            lines.append(
                f"The {field!r} parameter of TrainRecipe must be {reason}. "
                f"Got {quoted(problem['input'])} instead."
            )
        else:
            lines.append(f"TrainRecipe: {reason}.")
    return " ".join(lines)
