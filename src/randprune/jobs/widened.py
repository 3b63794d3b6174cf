"""The wide network of a job from scratch, as its recipe asks for it."""

from __future__ import annotations

from torch import nn

from randprune.recipe import WidenSection
from randprune.space import Space
from randprune.widening import widen


def widened(original: nn.Module, space: Space, section: WidenSection, seed: int) -> nn.Module:
    """The original network with every group at the largest width that a configuration may have.

    Args:
        original: with its own weights, which come first in the wide one.
        space: the original's.
        section: a factor for all groups, and others for groups by name.
        seed: of the new weights.
    """
    factor: float | dict[str, float] = section.factor
    if section.factors:
        others = {group.name: section.factor for group in space.groups}
        factor = {**others, **section.factors}
    return widen(original, space, factor, round_to=section.round_to, seed=seed)
