"""Divergence of the outputs (CURL, Luo & Wu, "Neural Network Pruning with Residual-Connections and
Limited-Data", CVPR 2020, Sec. 3.2).

Score of channel j: how far the class probabilities move when it is gone,

    s(j) = mean over images of KL(p without channel j || p of the dense network),

in nats. The channel is gone everywhere in its coupled group: every layer that reads it, does so
with weights zero, which is what cutting it does. So the score of a residual stage's channel needs
no rule for combining filters.

By default only what depends on a channel is computed again (`randprune.criteria.removal`), for many
channels at once; where that cannot be done or does not agree with the plain forward pass, and with
`fast=False`, one forward pass is run for each channel. No labels are used.

Known shortcomings: the dearest criterion, even so; channels are judged one at a time, so that of
two that stand in for each other both look useless; zero where a class's probability is saturated.
Differs from the paper: the direction of the divergence is kept, the images are a part of the
training data instead of a small proxy set, and every group is scored, not only blocks with
shortcuts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from randprune.criteria.base import Need, ScoringContext, criteria
from randprune.criteria.passes import check_outputs, thinned
from randprune.criteria.removal import Masked, Removal
from randprune.errors import DataError, UnsupportedModelError
from randprune.graph.sites import ChannelGraph

_CHECKED_IMAGES = 2
_TOLERANCE = 1e-3


@criteria.register("kl")
@dataclass(frozen=True)
class KL:
    """Mean divergence of the network's class probabilities without the channel.

    Attributes:
        images: how many images of the data are looked at, taken evenly.
        fast: whether shared parts of the forward passes are computed once.
    """

    images: int = 256
    fast: bool = True
    name: ClassVar[str] = "kl"
    needs: ClassVar[frozenset[Need]] = frozenset({"weights", "outputs"})

    @torch.no_grad()
    def scores(self, context: ScoringContext) -> list[Tensor]:
        """Mean divergences in nats, never negative; float64."""
        totals = [torch.zeros(g.width, dtype=torch.float64) for g in context.space.groups]
        graph = _graph(context) if self.fast else None
        fixed = graph is not None and graph.fixed_batch is not None
        removal = None if graph is None or fixed else Removal(graph)
        masked = Masked(context.model, context.space)
        slow = set(range(len(totals)))
        count = 0
        # Where the forward fixes the batch size, batches go through as they come.
        for images, _ in thinned(context, None if fixed else self.images):
            for piece in torch.split(images, removal.images_at_once if removal else len(images)):
                where = f"images {count} to {count + len(piece) - 1} of those chosen"
                if removal is not None:
                    if count == 0:
                        slow = disagreeing(removal, masked, piece[:_CHECKED_IMAGES])
                    _add_fast(removal, piece, totals, slow, where)
                _add_slow(masked, piece, totals, slow, where)
                count += len(piece)
        if not count:
            raise DataError(
                "The scoring data holds no images. Give at least one batch of (images, labels)."
            )
        return [total / count for total in totals]


def _graph(context: ScoringContext) -> ChannelGraph | None:
    try:
        return context.graph()
    except UnsupportedModelError:
        return None


def disagreeing(removal: Removal, masked: Masked, images: Tensor) -> set[int]:
    """Groups for which the fast way does not give what the plain forward pass gives.

    Compares the first and the last channel of every group on a few images.
    """
    wrong: set[int] = set()
    dense = removal.dense(images)
    for group, about in enumerate(removal.graph.space.groups):
        ends = torch.tensor([0, about.width - 1])
        plain = torch.stack([masked.outputs(images, group, int(j)) for j in ends])
        try:
            fast = removal.outputs(group, ends) if removal.reaches(group) else dense
        except (UnsupportedModelError, RuntimeError):
            wrong.add(group)
            continue
        # A NaN is no agreement either.
        if not bool((fast - plain).abs().max() <= _TOLERANCE * plain.abs().max()):
            wrong.add(group)
    return wrong


def _add_fast(
    removal: Removal, images: Tensor, totals: list[Tensor], slow: set[int], where: str
) -> None:
    dense = removal.dense(images)
    check_outputs(dense, where)
    for group, total in enumerate(totals):
        if group in slow or not removal.reaches(group):
            continue
        for channels in removal.pieces(group):
            total[channels] += _divergence(removal.outputs(group, channels), dense)


def _add_slow(
    masked: Masked, images: Tensor, totals: list[Tensor], slow: set[int], where: str
) -> None:
    if not slow:
        return
    dense = masked.outputs(images)
    check_outputs(dense, where)
    for group in sorted(slow):
        for channel in range(len(totals[group])):
            without = masked.outputs(images, group, channel)
            totals[group][channel] += _divergence(without[None], dense)[0]


def _divergence(without: Tensor, dense: Tensor) -> Tensor:
    """Sum over images of KL(without || dense), for logits (V, B, classes, ...): float64 (V,)."""
    ours = F.log_softmax(without.double(), dim=2)
    theirs = F.log_softmax(dense.double(), dim=1)
    # Pixels of a segmentation count as parts of their image.
    each = (ours.exp() * (ours - theirs)).sum(dim=2).reshape(*without.shape[:2], -1).mean(dim=2)
    return each.clamp_min(0.0).sum(dim=1).cpu()
