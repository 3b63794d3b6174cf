"""Gates trained end to end with frozen weights (AutoBot: Castells & Yeom, "Automatic neural network
pruning that efficiently preserves the model accuracy", AAAI workshops 2023).

Every channel gets a gate between 0 and 1, a sigmoid of one number, which what the layers behind
read of the channel is multiplied by. The weights stay; the gates alone are trained, by Adam, to
lower

    divergence + budget_weight * excess(MACs) + binary_weight * mean 4 g (1 - g),

where the divergence is KL(dense || gated) relative to that of an answer that is always the same,
MACs are those of widths that are sums of gates, and their excess is the part of what lies
above `ratio` that is left. The score of a channel is its gate, which means the same in all
groups: widths may be read off by one threshold (a global ranking, not divided by anything).

Known shortcomings: one trained set of gates belongs to one ratio; some hundred passes forward and
backward; channels that shut together early are not looked at again.
Differs from the paper: a gate multiplies, where the paper's also adds noise in place of what it
shuts out; it sits at the readers of a channel, which is the same for convolutions and linear
layers, and lets coupled layers share one gate; the loss is the divergence from the dense network's
outputs instead of the cross-entropy of the labels, so that no gate gains by forgetting classes;
MACs below the ratio cost nothing, where the paper pulls all gates up again, useless ones too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from randprune.cost import QuadraticCost
from randprune.criteria.base import Need, ScoringContext, criteria
from randprune.criteria.passes import check_outputs
from randprune.errors import DataError, InvalidInputError, UnsupportedModelError, quoted
from randprune.recovery.base import Passes
from randprune.recovery.shuffled import shuffled
from randprune.space import Space

_OPEN = 3.0
"""The number behind a gate at the start: it lets 95 % through."""


@criteria.register("gates")
@dataclass(frozen=True)
class Gates:
    """What is left of a channel's gate after training it for a share of the MACs.

    Attributes:
        ratio: share of the dense MACs that gates are trained for.
        steps: of the optimiser.
        batch: images a step, at most.
        lr: learning rate of the numbers behind the gates.
        budget_weight, binary_weight: of the terms that hold the ratio and part the gates.
    """

    ratio: float = 0.5
    steps: int = 200
    batch: int = 64
    lr: float = 0.1
    budget_weight: float = 6.0
    binary_weight: float = 0.4
    name: ClassVar[str] = "gates"
    needs: ClassVar[frozenset[Need]] = frozenset({"weights", "gradients"})

    def __post_init__(self) -> None:
        if not 0.0 < self.ratio < 1.0:
            raise InvalidInputError(
                f"The 'ratio' parameter of gates must lie between 0 and 1. Got "
                f"{quoted(self.ratio)} instead."
            )
        if self.steps < 1 or self.batch < 1:
            raise InvalidInputError(
                "The 'steps' and 'batch' parameters of gates must be at least 1. Got "
                f"{quoted(self.steps)} and {quoted(self.batch)} instead."
            )

    def passes(self, images: int) -> Passes:
        """Every step sends a batch forward twice, without gates and with them, and back once."""
        count = self.steps * min(self.batch, images)
        return Passes(2 * count, count)

    def scores(self, context: ScoringContext) -> list[Tensor]:
        """The gates, in (0, 1), float64; 0 for channels that the outputs do not depend on.

        Raises:
            DataError: no images, or outputs that are no logits.
            UnsupportedModelError: the network's MACs are no polynomial of its widths.
        """
        space = context.space
        expected = _ExpectedMacs(space, context.device)
        numbers = [
            torch.full((group.width,), _OPEN, device=context.device, requires_grad=True)
            for group in space.groups
        ]
        felt = [torch.zeros_like(number, dtype=torch.bool) for number in numbers]
        optimizer = torch.optim.Adam(numbers, lr=self.lr)
        for images in self._batches(context):
            optimizer.zero_grad()
            graph = context.graph(len(images))
            with torch.no_grad():
                dense = graph.run(images)
            check_outputs(dense, "the images")
            with torch.enable_grad():
                gates = [torch.sigmoid(number) for number in numbers]
                logits = graph.run(images, tensors=_gated(space, graph.tensors, gates))
                divergence = _divergence(logits, dense)
                apart = torch.cat([4 * gate * (1 - gate) for gate in gates]).mean()
                excess = (expected.share(gates) - self.ratio).clamp_min(0.0) / (1.0 - self.ratio)
                held = self.budget_weight * excess + self.binary_weight * apart
                of_outputs = torch.autograd.grad(
                    divergence, numbers, retain_graph=True, materialize_grads=True
                )
                of_held = torch.autograd.grad(held, numbers)
            for number, seen, outward, inward in zip(
                numbers, felt, of_outputs, of_held, strict=True
            ):
                number.grad = outward + inward
                seen |= outward != 0.0
            optimizer.step()
        return [
            (torch.sigmoid(number.detach()) * seen).double().cpu()
            for number, seen in zip(numbers, felt, strict=True)
        ]

    def _batches(self, context: ScoringContext) -> Iterator[Tensor]:
        """`steps` batches of the data, shuffled anew in every pass."""
        assert context.batches is not None
        parts = [images for images, _ in context.batches()]
        if not parts:
            raise DataError("The scoring data holds no images. Give a few hundred images.")
        images = torch.cat(parts)
        for rows in shuffled(len(images), self.batch, self.steps, context.generator):
            yield images[rows]


def _divergence(gated: Tensor, dense: Tensor) -> Tensor:
    """KL(dense || gated) for logits (B, classes, ...), relative to that of a constant answer."""
    ours, theirs = gated.log_softmax(dim=1), dense.detach().log_softmax(dim=1)
    dims = [d for d in range(theirs.ndim) if d != 1]
    constant = theirs.exp().mean(dim=dims, keepdim=True).log()
    own, worst = ((theirs.exp() * (theirs - z)).sum(dim=1).mean() for z in (ours, constant))
    found: Tensor = own / worst.clamp_min(1e-12)
    return found


class _ExpectedMacs:
    """MACs of widths that are sums of gates, as a share of the dense network's."""

    def __init__(self, space: Space, device: torch.device) -> None:
        cost = space.cost("macs")
        if not isinstance(cost, QuadraticCost):
            raise UnsupportedModelError(
                "The criterion 'gates' needs MACs that are a polynomial of the widths, which this "
                "network's are not. Use another criterion."
            )
        self.quadratic = torch.from_numpy(cost.quadratic / cost.dense).float().to(device)
        self.linear = torch.from_numpy(cost.linear / cost.dense).float().to(device)
        self.constant = cost.constant / cost.dense

    def share(self, gates: list[Tensor]) -> Tensor:
        widths = torch.stack([gate.sum() for gate in gates])
        total: Tensor = widths @ self.quadratic @ widths + self.linear @ widths + self.constant
        return total


def _gated(space: Space, tensors: Mapping[str, Tensor], gates: list[Tensor]) -> dict[str, Tensor]:
    """The weights behind every group, their columns multiplied by the group's gates."""
    found: dict[str, Tensor] = {}
    for group, gate in zip(space.groups, gates, strict=True):
        for slot in group.with_role("in"):
            weight = found.get(slot.tensor, tensors[slot.tensor].detach())
            index = torch.from_numpy(slot.index).to(weight.device)
            factors = weight.new_ones(weight.shape[slot.dim])
            factors = factors.index_copy(
                0, index.reshape(-1), gate.repeat_interleave(index.shape[1])
            )
            shape = [1] * weight.ndim
            shape[slot.dim] = -1
            found[slot.tensor] = weight * factors.reshape(shape)
    return found
