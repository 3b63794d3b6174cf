"""A short distillation: a few hundred steps on calibration images towards the dense outputs.

No labels are used. All weights are trained; norms keep their statistics, and dropout is off. The
loss is the squared distance from the dense network's outputs, of each output relative to its
variance over the images (logits matched by squares: Ba & Caruana, "Do deep nets really need to be
deep?", NIPS 2014), so that it serves classes, maps and boxes alike.

A fifth of the images is held out: the weights that are kept are those of the look with the least
error there, the first look being before any step, so that the network is no worse on them than it
came.

This is training, if a short one: what it gives is not to be called "without training", and its
forward and backward passes are in the ledger.

Known shortcomings: few images are seen many times, without augmentation; it takes the time of about
an epoch on `steps` times `batch` images for every network that is repaired by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from randprune.errors import DataError, UnsupportedModelError
from randprune.graph.program import evaluation_mode, in_mode, private_copy
from randprune.graph.trees import count_of, floating_leaves, part_of
from randprune.recovery.shuffled import shuffled

HELD = 0.2
"""Share of the images on which weights are chosen; the last ones."""
LOOKS = 10
"""How often the error on held-out images is looked at."""

_KEPT = 1 << 26
"""Most numbers of the dense outputs that are held (256 MiB); else they are computed again."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: of the optimiser (Adam), at least 1.
        batch: images a step.
        lr: the peak learning rate, which falls to 0 along a cosine.
        seed: of the order of images.
    """

    steps: int = 300
    batch: int = 64
    lr: float = 3e-4
    seed: int = 0


def distill(
    small: nn.Module, model: nn.Module, inputs: tuple[Any, ...], schedule: Schedule
) -> nn.Module:
    """`small` itself, trained in place towards the outputs of `model`.

    Args:
        small: a repaired network; its mode and what of it requires gradients stay.
        model: the dense network; left untouched.
        inputs: of the network, a tuple of arguments with at least 5 samples.
        schedule: of the training.

    Raises:
        DataError: fewer than 5 samples, or dense outputs that do not vary over them.
        UnsupportedModelError: the outputs do not depend on the weights by gradients.
    """
    count = count_of(inputs)
    held = int(HELD * count)
    if not held:
        raise DataError(f"Distillation needs at least {round(1 / HELD)} samples. Got {count}.")
    teacher = _Teacher(model, inputs, schedule.batch)
    fitted, left = count - held, torch.arange(count - held, count)
    generator = torch.Generator().manual_seed(schedule.seed)
    every = max(1, schedule.steps // LOOKS)
    with _trainable(small) as weights:
        optimizer = torch.optim.Adam(weights, lr=schedule.lr)
        best, kept = _error(small, teacher, inputs, left, schedule.batch), _copies(weights)
        drawn = shuffled(fitted, schedule.batch, schedule.steps, generator)
        for step, rows in enumerate(drawn):
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr * 0.5 * (1 + math.cos(math.pi * step / schedule.steps))
            optimizer.zero_grad()
            with torch.enable_grad():
                loss = _distance(small(*part_of(inputs, rows)), teacher, rows)
            if not loss.requires_grad:
                raise UnsupportedModelError(
                    "The network's outputs have no gradient with respect to its weights (it may "
                    "run under torch.no_grad), so that it cannot be distilled. Leave `distill` out "
                    "of the recovery."
                )
            torch.autograd.backward(loss)
            optimizer.step()
            if (step + 1) % every == 0 or step + 1 == schedule.steps:
                error = _error(small, teacher, inputs, left, schedule.batch)
                if error < best:
                    best, kept = error, _copies(weights)
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)
    return small


class _Teacher:
    """The dense network's outputs, held where they fit into memory, and their spreads."""

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...], batch: int) -> None:
        self.network = in_mode(private_copy(model))
        self.inputs = inputs
        count, numbers = count_of(inputs), 0
        parts: list[list[Tensor]] = []
        sums: list[Tensor] = []
        squares: list[Tensor] = []
        for rows in torch.split(torch.arange(count), batch):
            outputs = self._run(rows)
            numbers += sum(z.numel() for z in outputs)
            parts = [*parts, outputs] if numbers <= _KEPT else []
            for i, z in enumerate(outputs):
                if i == len(sums):
                    sums.append(torch.zeros(z.shape[1:], dtype=torch.float64))
                    squares.append(torch.zeros((), dtype=torch.float64))
                sums[i] += z.sum(dim=0, dtype=torch.float64)
                squares[i] += z.double().square().sum()
        self.held = [torch.cat(z) for z in zip(*parts, strict=True)] if numbers <= _KEPT else None
        means = [s / count for s in sums]
        # Of one sample: E|z - mean z|^2. Outputs that are the same for all samples say nothing.
        self.spreads = [
            float(sq / count - m.square().sum()) if float(sq) else 0.0
            for sq, m in zip(squares, means, strict=True)
        ]
        floor = [1e-9 * float(sq / count) for sq in squares]
        self.vary = [i for i, s in enumerate(self.spreads) if s > floor[i]]
        if not self.vary:
            raise DataError("The network's outputs do not vary over the images given.")

    def outputs(self, rows: Tensor) -> Sequence[Tensor]:
        """The dense outputs of some samples."""
        return self._run(rows) if self.held is None else [z[rows] for z in self.held]

    @torch.no_grad()
    def _run(self, rows: Tensor) -> list[Tensor]:
        return _by_sample(self.network(*part_of(self.inputs, rows)), len(rows))


def _by_sample(outputs: Any, count: int) -> list[Tensor]:
    """The outputs that have a row for each of the samples."""
    return [z for z in floating_leaves(outputs).values() if z.ndim and len(z) == count]


def _distance(outputs: Any, teacher: _Teacher, rows: Tensor) -> Tensor:
    """The mean over samples and varying outputs of |z - z0|^2 / E|z0 - mean z0|^2."""
    own, wanted = _by_sample(outputs, len(rows)), teacher.outputs(rows)
    parts = [
        (own[i] - wanted[i]).square().sum() / (len(rows) * teacher.spreads[i]) for i in teacher.vary
    ]
    return torch.stack(parts).mean()


@torch.no_grad()
def _error(
    small: nn.Module, teacher: _Teacher, inputs: tuple[Any, ...], rows: Tensor, batch: int
) -> float:
    """The distance on held-out samples; infinite where it is not a number."""
    total = 0.0
    for some in torch.split(rows, batch):
        total += float(_distance(small(*part_of(inputs, some)), teacher, some)) * len(some)
    return total / len(rows) if math.isfinite(total) else math.inf


def _copies(weights: Sequence[Tensor]) -> list[Tensor]:
    return [weight.detach().clone() for weight in weights]


@contextmanager
def _trainable(network: nn.Module) -> Iterator[list[nn.Parameter]]:
    """All floating parameters, in evaluation mode; flags and modes are as before afterwards."""
    flags = [(p, p.requires_grad) for p in network.parameters() if p.is_floating_point()]
    for parameter, _ in flags:
        parameter.requires_grad_(True)
    try:
        with evaluation_mode(network):
            yield [parameter for parameter, _ in flags]
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None
