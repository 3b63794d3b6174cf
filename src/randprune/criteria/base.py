"""What a criterion is: a score for every channel of every group, higher = keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from randprune.registry import Registry
from randprune.space import ChannelGroup, Slot, Space

Need = Literal["weights", "moments", "activations", "gradients", "outputs"]
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """What criteria may look at.

    Attributes:
        model: the dense network in evaluation mode; criteria must leave it unchanged.
        space: its channel groups.
        batches: a callable that starts a pass over the scoring data, yielding (images (B, C, H, W)
            float32 normalised, labels (B,) int64); None where no data was given.
        generator: the only source of randomness.
        shared: results that several criteria need, computed once (e.g. second moments).
    """

    model: nn.Module
    space: Space
    batches: Callable[[], Iterable[Batch]] | None
    generator: torch.Generator
    shared: dict[str, Any] = field(default_factory=dict)

    def tensor(self, slot: Slot) -> torch.Tensor:
        """The dense tensor of a slot, detached float32."""
        return _tensors(self)[slot.tensor].detach().float()

    def filters(self, slot: Slot) -> torch.Tensor:
        """The weights of each channel of a slot: (width, multiplicity, everything else)."""
        weight = self.tensor(slot)
        index = torch.from_numpy(slot.index)
        rows = weight.movedim(slot.dim, 0)[index.reshape(-1).to(weight.device)]
        return rows.reshape(*slot.index.shape, -1)


def _tensors(context: ScoringContext) -> dict[str, torch.Tensor]:
    if "tensors" not in context.shared:
        named: dict[str, torch.Tensor] = dict(
            context.model.named_parameters(remove_duplicate=False)
        )
        named.update(dict(context.model.named_buffers(remove_duplicate=False)))
        context.shared["tensors"] = named
    found: dict[str, torch.Tensor] = context.shared["tensors"]
    return found


@runtime_checkable
class Criterion(Protocol):
    """Importance of channels. Constructors only store arguments; `repr` rebuilds the object."""

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    @property
    def needs(self) -> frozenset[Need]:
        """What it looks at; anything but "weights" requires data."""
        ...

    def scores(self, context: ScoringContext) -> list[torch.Tensor]:
        """One float tensor (width,) a group, higher = keep; finite. Called once per network."""
        ...


criteria: Registry[Criterion] = Registry("criterion", "randprune.criteria")


def per_group(
    context: ScoringContext, function: Callable[[ChannelGroup], torch.Tensor]
) -> list[torch.Tensor]:
    """Apply a function to every group of the context's space."""
    return [function(group) for group in context.space.groups]
