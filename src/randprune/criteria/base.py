"""What a criterion is: a score for every channel of every group, higher = keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from randprune.criteria.channels import ChannelGraph, dense_program
from randprune.errors import InvalidInputError
from randprune.lineage import named_tensors
from randprune.registry import Registry
from randprune.space import ChannelGroup, Slot, Space

Need = Literal["weights", "moments", "activations", "gradients", "outputs"]
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """What criteria may look at.

    Attributes:
        model: a copy of the dense network in evaluation mode. Criteria leave its parameters and
            buffers as they are, since other criteria look at the same copy.
        space: its channel groups.
        batches: a callable that starts a pass over the scoring data, yielding (images (B, C, H, W)
            float32 normalised, labels (B,) int64) on the model's device; None where no data was
            given.
        generator: the only source of randomness.
        shared: results that several criteria need, computed once (e.g. second moments).
        images: how many images a pass yields; None where that is not known beforehand.
    """

    model: nn.Module
    space: Space
    batches: Callable[[], Iterable[Batch]] | None
    generator: torch.Generator
    shared: dict[str, Any] = field(default_factory=dict)
    images: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Every parameter and buffer by name, detached, in the form in which it is cut."""
        if "tensors" not in self.shared:
            if self.space.as_graph:
                _, _, named = dense_program(self.model, self.space)
            else:
                named = {n: t.detach() for n, t in named_tensors(self.model).items()}
            self.shared["tensors"] = named
        found: dict[str, torch.Tensor] = self.shared["tensors"]
        return found

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
        """The network's graph with the sites where layers read channels, exported once.

        `batch`: the size of the batches that will run through it, by default the traced one; it
        matters only to networks whose forward fixes a batch size.

        Raises:
            UnsupportedModelError: see `ChannelGraph`.
            InvalidInputError: the network does not run on batches of this size.
        """
        if "graph" not in self.shared:
            try:
                self.shared["graph"] = ChannelGraph(self.model, self.space)
            except InvalidInputError:  # its forward does not take a batch of two
                self.shared["graph"] = None
        free: ChannelGraph | None = self.shared["graph"]
        if free is not None and free.fixed_batch is None:
            return free
        size = batch or self.space.inputs[0][0][0]
        fixed: dict[int, ChannelGraph] = self.shared.setdefault("fixed graphs", {})
        if size not in fixed:
            fixed[size] = ChannelGraph(self.model, self.space, size)
        return fixed[size]


@runtime_checkable
class Criterion(Protocol):
    """Importance of channels. Constructors only store arguments; `repr` rebuilds the object.

    A criterion that collects something in a pass over the data may also have
    `prepare(context)`, called before the scores of any criterion are asked for: what it requests
    there (`randprune.criteria.passes.request`) is collected in one pass for all criteria.
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


criteria: Registry[Criterion] = Registry("criterion", "randprune.criteria")


def per_group(
    context: ScoringContext, function: Callable[[ChannelGroup], torch.Tensor]
) -> list[torch.Tensor]:
    """Apply a function to every group of the context's space."""
    return [function(group) for group in context.space.groups]
