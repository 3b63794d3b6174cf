"""The step of widths that runtimes reward, where it costs a network no choice.

Vector units and memory layouts work on 8 or 16 channels at a time: other widths are padded, or
computed by slower kernels. A step takes choices away in exchange. So the greatest one is taken that
leaves half of the groups at least eight widths each; 1 for narrow networks, such as those for
CIFAR, where 8 would leave a group of 16 channels two.

The rule looks at the network alone, never at the machine: the same job is the same everywhere.
"""

from __future__ import annotations

import numpy as np

from randprune.space import Space

AUTO = "auto"
"""What recipes call this rule."""

_STEPS = (16, 8)
_WIDTHS = 8


def step_for(space: Space) -> int:
    """The step of a network: 16, 8 or 1.

    Examples:
        >>> rows = lambda width: np.arange(width)[:, None]
        >>> from randprune.space import ChannelGroup
        >>> def space(*widths): return Space(tuple(
        ...     ChannelGroup(str(g), w, ()) for g, w in enumerate(widths)), (), {})
        >>> step_for(space(16, 32, 64)), step_for(space(64, 64, 128)), step_for(space(64, 128, 512))
        (1, 8, 16)
    """
    middle = float(np.median(space.widths)) if len(space) else 0.0
    return next((step for step in _STEPS if middle >= step * _WIDTHS), 1)
