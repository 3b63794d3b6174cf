"""One training step of shared weights: a few configurations on the same batch.

Method. Each step draws configurations within the budget. Options: the sandwich rule (Yu & Huang,
"Universally slimmable networks", ICCV 2019) adds the widest and the narrowest configuration to each
step, and in-place distillation lets all others learn the widest one's softened outputs instead of
the labels. The loss is the mean over the step's configurations, so that the learning rate means the
same whatever their number.

The optimizer moves nothing but the slices in use: weight decay and momentum of entries that no
configuration of the step uses wait until one does. Otherwise rarely used channels would shrink, or
drift on old momentum, in steps that say nothing about them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from randprune.errors import InvalidInputError
from randprune.space import IntArray
from randprune.supernet.network import Supernet
from randprune.tasks.classification import logits_of
from randprune.training.steps import StepOutput


class SharedStep:
    """Trains a `Supernet`; give it to `randprune.training.train`.

    Args:
        pool: configurations that steps draw from, int64 (N, G), each within the budget.
        per_step: how many of them a step trains.
        sandwich: also train the space's full widths and `narrowest` in every step.
        narrowest: the configuration of the other end, int64 (G,); needed by `sandwich`.
        distill: the others learn the full network's outputs; needs `sandwich`.
        label_smoothing: share of the uniform label.

    Raises:
        InvalidInputError: options that do not fit together.
    """

    def __init__(
        self,
        pool: IntArray,
        *,
        per_step: int = 1,
        sandwich: bool = False,
        narrowest: IntArray | None = None,
        distill: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        if pool.ndim != 2 or not len(pool):
            raise InvalidInputError(
                "The 'pool' parameter of SharedStep must hold configurations (N, G). "
                f"Got shape {pool.shape} instead."
            )
        if sandwich and narrowest is None:
            raise InvalidInputError("The sandwich rule needs 'narrowest', a configuration (G,).")
        if distill and not sandwich:
            raise InvalidInputError(
                "In-place distillation learns from the full network, which only the sandwich rule "
                "trains. Set sandwich=True."
            )
        self.pool = pool
        self.per_step = per_step
        self.sandwich = sandwich
        self.narrowest = narrowest
        self.distill = distill
        self.label_smoothing = label_smoothing
        self._supernet: Supernet | None = None
        self._guard: _UnusedEntries | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides the run besides recipe, weights and images, JSON-ready."""
        return {
            "name": type(self).__qualname__,
            "pool": hashlib.sha256(np.ascontiguousarray(self.pool, "<i8").tobytes()).hexdigest(),
            "per_step": self.per_step,
            "sandwich": self.sandwich,
            "narrowest": None if self.narrowest is None else self.narrowest.tolist(),
            "distill": self.distill,
            "label_smoothing": self.label_smoothing,
        }

    def attach(self, network: nn.Module, optimizer: Optimizer) -> None:
        """Called by the loop before the first step, with its own copy of the network.

        Raises:
            InvalidInputError: the network is no `Supernet`.
        """
        if not isinstance(network, Supernet):
            raise InvalidInputError(
                f"SharedStep trains a Supernet. Got {type(network).__name__} instead."
            )
        self._supernet = network
        self._guard = _UnusedEntries(network, optimizer)

    def rows(self, generator: torch.Generator) -> IntArray:
        """The configurations of a step, in the order in which they run, int64 (n, G)."""
        picked = torch.randint(len(self.pool), (self.per_step,), generator=generator)
        rows = [self.pool[i] for i in picked.tolist()]
        if self.sandwich:
            assert self._supernet is not None
            assert self.narrowest is not None
            rows = [self._supernet.space.widths, self.narrowest, *rows]
        return np.array(rows, dtype=np.int64)

    def __call__(self, model: nn.Module, batch: Any, generator: torch.Generator) -> StepOutput:
        """The mean loss of the step's configurations, and the last one's logits."""
        images, labels = batch
        assert self._supernet is not None
        assert self._guard is not None
        rows = self.rows(generator)
        self._guard.rows = rows
        losses: list[Tensor] = []
        teacher: Tensor | None = None
        for number, row in enumerate(rows):
            self._supernet.configure(row)
            logits = logits_of(model(images), type(self._supernet.shared).__name__).float()
            if teacher is not None:
                losses.append(-(teacher * F.log_softmax(logits, dim=1)).sum(dim=1).mean())
            else:
                losses.append(F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing))
            if self.distill and number == 0:
                teacher = F.softmax(logits.detach(), dim=1)
        return StepOutput(torch.stack(losses).mean(), logits)


class _UnusedEntries:
    """Puts back, after each step of the optimizer, what the step's configurations do not use."""

    def __init__(self, network: Supernet, optimizer: Optimizer) -> None:
        self.network = network
        self.rows: IntArray = network.space.widths[None]
        self.parameters = dict(network.shared.named_parameters())
        self._before: list[tuple[Tensor, dict[str, Tensor], Tensor, Tensor]] = []
        optimizer.register_step_pre_hook(self._remember)
        optimizer.register_step_post_hook(self._put_back)

    @torch.no_grad()
    def _remember(self, optimizer: Optimizer, *_: Any) -> None:
        self._before = []
        for name, used in self.network.used(self.rows).items():
            parameter = self.parameters[name]
            state = {
                key: value.clone()
                for key, value in optimizer.state.get(parameter, {}).items()
                if isinstance(value, Tensor) and value.shape == parameter.shape
            }
            self._before.append((parameter, state, parameter.detach().clone(), used))

    @torch.no_grad()
    def _put_back(self, optimizer: Optimizer, *_: Any) -> None:
        for parameter, state, before, used in self._before:
            parameter.copy_(torch.where(used, parameter, before))
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # State that this very step has made starts at zero.
                    old = state.get(key, torch.zeros_like(value))
                    value.copy_(torch.where(used, value, old))
        self._before = []
