"""First-order Taylor expansion of the loss (Molchanov et al., "Importance Estimation for Neural
Network Pruning", CVPR 2019).

A gate behind the batch norm multiplies each channel by one. The change of the loss when it is shut
is, to first order, the gradient by the gate (Eq. 8); with the gate merged into the scale,

    s(j) = sum over batches of (gamma_j * dL/dgamma_j)^2,

L being the mean cross-entropy of the batch. `beta=True` adds the shift, gamma_j * dL/dgamma_j +
beta_j * dL/dbeta_j, which is the gradient by the gate exactly. Where no batch norm directly follows
the layer, the filter itself is the gate:

    s(j) = sum over batches of (sum over the filter of w * dL/dw)^2.

Coupled groups add up the scores of all their filters; within a layer, all places of a channel are
one filter.

Known shortcomings: only as good as the loss is linear around the trained weights; the gradient of a
network that fits its data is small and noisy, so that many images are needed; scores depend on the
batch size, since the square is taken of a batch's mean gradient; without batch norm, filters that
are standardised before use score zero, as their size does not matter.
Differs from the paper: one pass over fixed data instead of a running average while the network is
trained and pruned; evaluation mode; filters with and without batch norm can meet in one coupled
group, where their scores are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from randprune.criteria.base import Need, ScoringContext, criteria
from randprune.criteria.passes import collected, request
from randprune.graph.observers import Observer
from randprune.space import Slot, Space


@criteria.register("taylor")
@dataclass(frozen=True)
class Taylor:
    """Squared first-order change of the loss when a channel's gates are shut.

    Attributes:
        beta: whether the gate covers the batch norm's shift too.
    """

    beta: bool = False
    name: ClassVar[str] = "taylor"
    needs: ClassVar[frozenset[Need]] = frozenset({"weights", "gradients"})

    def prepare(self, context: ScoringContext) -> None:
        """Request the gradients."""
        request(context, self, lambda: _Gates(context, self.beta))

    def scores(self, context: ScoringContext) -> list[Tensor]:
        """Squared changes of the loss (nats squared), summed over batches; float64."""
        return collected(context, self, lambda: _Gates(context, self.beta)).totals


Gate = list[tuple[str, Slot]]
"""Tensors, each with the slot of the group's places in it, that are scaled by one gate."""


class _Gates(Observer):
    """Sums over batches of the squared gradients by all gates of every group."""

    def __init__(self, context: ScoringContext, beta: bool) -> None:
        self.context = context
        self.gates = _gates(context.space, context.graph().norm_behind, beta)
        self.tensors = frozenset(name for gates in self.gates for gate in gates for name, _ in gate)
        self.totals = [
            torch.zeros(group.width, dtype=torch.float64) for group in context.space.groups
        ]

    def gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Square this batch's gradients by the gates."""
        values = {
            name: self.context.tensors[name].double() * gradient.double()
            for name, gradient in gradients.items()
        }
        for total, gates in zip(self.totals, self.gates, strict=True):
            for gate in gates:
                change = torch.zeros_like(total)
                for name, slot in gate:
                    parts = self.context.filters(slot, values[name])
                    change += parts.sum(dim=(1, 2)).cpu()
                total += change.square()


def _gates(space: Space, norm_behind: Mapping[str, str], beta: bool) -> list[list[Gate]]:
    """The gates of every group: one for each of its filters."""
    found: list[list[Gate]] = []
    for group in space.groups:
        scales = {slot.tensor: slot for slot in group.with_role("pass")}
        gates: list[Gate] = []
        for slot in group.with_role("out"):
            gamma = norm_behind.get(slot.tensor, "")
            if gamma not in scales:
                gates.append([(slot.tensor, slot)])
                continue
            gate = [(gamma, scales[gamma])]
            shift = f"{gamma.removesuffix('weight')}bias"
            if beta and shift in scales:
                gate.append((shift, scales[shift]))
            gates.append(gate)
        found.append(gates)
    return found
