"""Whole numbers that modules keep for their forward pass, such as the `c` of ``split((c, c))``.

Such a number is invisible to labels, but an attribute can be set where a literal cannot. Where a
trial cut fails, the attributes that could count the failing group's channels are looked for; the
trial decides which of them is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import nn

from randprune.space import ChannelGroup, IntArray, Slot, Space

_TRIES = 12  # of attributes and sets of attributes, for one group


def change_numbers(model: nn.Module, space: Space, widths: IntArray | Sequence[int]) -> None:
    """Bring the numbers that forwards read in line with these widths, in place.

    They are those of the space's dense network.
    """
    for group, width in zip(space.groups, widths, strict=True):
        for slot in group.numbers:
            path, _, attribute = slot.tensor.rpartition(".")
            module = model.get_submodule(path)
            change = (int(width) - group.width) * slot.index.shape[1]
            setattr(module, attribute, getattr(module, attribute) + change)


def candidate_numbers(
    model: nn.Module, group: ChannelGroup, where: str | None
) -> Iterator[tuple[Slot, ...]]:
    """Attributes that may count the channels of a group, the likeliest first, a few at most.

    Args:
        model: the dense network.
        where: the module whose forward pass stopped; None where it ran to its end.
    """
    near = [] if where is None else [where]
    paths = near + sorted(set(_around(group)) - set(near), key=len, reverse=True)
    found = [list(_counting(model.get_submodule(path), path, group)) for path in paths]
    tried = 0
    for slots in found:
        sets = [(slot,) for slot in slots]
        for chosen in [*sets, *([tuple(slots)] if len(slots) > 1 else [])]:
            tried += 1
            if tried <= _TRIES:
                yield chosen


def _around(group: ChannelGroup) -> Iterator[str]:
    """The modules that hold a group's tensors, layers themselves left out."""
    for slot in group.slots:
        path = slot.tensor.split(".")[:-2]
        yield from (".".join(path[:depth]) for depth in range(len(path) + 1))


def _counting(module: nn.Module, path: str, group: ChannelGroup) -> Iterator[Slot]:
    """The plain integers among a module's attributes that are multiples of the group's width."""
    if type(module).__module__.startswith("torch.nn."):
        return  # layers are brought in line by their weights
    by_size = {slot.index.shape[1]: slot for slot in reversed(group.slots)}
    for attribute, value in vars(module).items():
        if type(value) is not int or value < 2 or value % group.width:
            continue
        each = value // group.width
        wider = [size for size in by_size if size >= each]
        if wider and (each == 1 or each in by_size):
            index = by_size[min(wider)].index[:, :each]
            name = f"{path}.{attribute}" if path else attribute
            yield Slot(name, 0, np.ascontiguousarray(index), "pass")
