"""What a criterion is: a score for every channel of every group, higher = keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import nn

from randprune.graph.sites import ChannelGraph
from randprune.recovery.base import Passes
from randprune.recovery.dense import DenseStatistics
from randprune.registry import Registry
from randprune.space import ChannelGroup, Slot, Space

__all__ = ["Batch", "Criterion", "Need", "ScoringContext", "criteria", "passes_of", "per_group"]

Need = Literal["weights", "moments", "activations", "gradients", "outputs"]
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """What criteria may look at.

    Attributes:
        shared: the dense network, and what several criteria need of it, made once.
        batches: a callable that starts a pass over the scoring data, yielding (images (B, C, H, W)
            float32 normalised, labels (B,) int64) on the model's device; None where no data was
            given.
        generator: the only source of randomness.
        images: how many images a pass yields; None where that is not known beforehand.
    """

    shared: DenseStatistics
    batches: Callable[[], Iterable[Batch]] | None
    generator: torch.Generator
    images: int | None = None

    @property
    def model(self) -> nn.Module:
        """A copy of the dense network in evaluation mode.

        Criteria leave its parameters and buffers as they are, since others look at the same copy.
        """
        return self.shared.copy

    @property
    def space(self) -> Space:
        """The network's channel groups."""
        return self.shared.space

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.shared.device

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Every parameter and buffer by name, detached, in the form in which it is cut."""
        return self.shared.tensors

    def tensor(self, slot: Slot) -> torch.Tensor:
        """The dense tensor of a slot, detached float32."""
        return self.tensors[slot.tensor].float()

    def filters(self, slot: Slot, of: torch.Tensor | None = None) -> torch.Tensor:
        """The weights of each channel of a slot: (width, multiplicity, everything else).

        `of`: a tensor of the slot's shape to take them from, instead of the network's own.
        """
        weight = self.tensor(slot) if of is None else of
        index = torch.from_numpy(slot.index)
        rows = weight.movedim(slot.dim, 0)[index.reshape(-1).to(weight.device)]
        return rows.reshape(*slot.index.shape, -1)

    def graph(self, batch: int | None = None) -> ChannelGraph:
        """The network's graph with the sites where layers read channels; see `DenseStatistics`."""
        return self.shared.graph(batch)


@runtime_checkable
class Criterion(Protocol):
    """Importance of channels. Constructors only store arguments; `repr` rebuilds the object.

    A criterion that collects something in a pass over the data may also have
    `prepare(context)`, called before the scores of any criterion are asked for: what it requests
    there (`randprune.criteria.passes.request`) is collected in one pass for all criteria. One that
    goes over the data more than once says how often in `passes(images)`, a `Passes`.
    """

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


def passes_of(criterion: Criterion, images: int) -> Passes:
    """What scoring sends through the network, of so many images, where it looks at any."""
    own = getattr(criterion, "passes", None)
    if own is not None:
        found: Passes = own(images)
        return found
    looked = min(getattr(criterion, "images", images), images)
    return Passes(looked, looked if "gradients" in criterion.needs else 0)


criteria: Registry[Criterion] = Registry("criterion", "randprune.criteria")


def per_group(
    context: ScoringContext, function: Callable[[ChannelGroup], torch.Tensor]
) -> list[torch.Tensor]:
    """Apply a function to every group of the context's space."""
    return [function(group) for group in context.space.groups]
