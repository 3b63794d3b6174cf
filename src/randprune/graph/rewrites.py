"""What changes in a node's arguments when channels go: sizes, bounds, pads, groups.

The tracing rules say *which* positions go; a rewrite says what an operator's literal numbers
become. Only literals are touched: sizes that the graph computes at run time follow by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.fx import Node

from randprune.graph.labels import Labels
from randprune.graph.rules import Axis, Value, arguments, concrete, concrete_shape


@dataclass(frozen=True, slots=True, eq=False)
class Survivors:
    """Which labels stay; sizes and bounds after the cut follow from it."""

    labels: Labels
    alive: npt.NDArray[np.bool_]
    values: dict[Node, Any]

    def count(self, axis: Axis, size: int, stop: int | None = None) -> int:
        """Positions of an axis that stay, of its first `stop` or of all."""
        stop = size if stop is None else stop
        if axis is None:
            return stop
        labels = axis[:stop]
        return int(np.where(labels < 0, True, self.alive[np.maximum(labels, 0)]).sum())

    def shape(self, value: Value) -> list[int]:
        """The value's shape after the cut."""
        return [self.count(a, s) for a, s in zip(value.axes, value.shape, strict=True)]

    def of(self, node: Any) -> Value | None:
        """The labels of a node, if it is a tensor."""
        found = self.values.get(node) if isinstance(node, Node) else None
        return found if isinstance(found, Value) else None


Arguments = dict[str, Any]
Rewrite = Callable[[Survivors, Node, Arguments], "torch._ops.OpOverload | None"]
_REWRITES: dict[str, Rewrite] = {}


def rewrite(*operators: str) -> Callable[[Rewrite], Rewrite]:
    """Register what happens to the literals of these operators (packet names)."""

    def register(function: Rewrite) -> Rewrite:
        for operator in operators:
            if operator in _REWRITES:
                raise ValueError(f"The operator {operator!r} has a rewrite already.")
            _REWRITES[operator] = function
        return function

    return register


def rewritten(survivors: Survivors, node: Node) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The node's target and arguments after the cut, still in terms of the old nodes."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return target, node.args, node.kwargs
    name = target.overloadpacket._qualified_op_name.removeprefix("aten::")
    change = _REWRITES.get(name)
    if change is None:
        return target, node.args, node.kwargs
    bound = arguments(node)
    other = change(survivors, node, bound)
    target = other or target
    positional = [a.name for a in target._schema.arguments if not a.kwarg_only]
    args = tuple(bound[n] for n in positional if n in bound)
    kwargs = {
        a.name: bound[a.name] for a in target._schema.arguments if a.kwarg_only and a.name in bound
    }
    return target, args, kwargs


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """A size computed at run time that a cut shrinks from `before` to `after` (batch * heads)."""

    size: Node
    before: int
    after: int


def _literals(sizes: Sequence[Any], new: Sequence[int], old: Sequence[int]) -> list[Any]:
    """Replace sizes by those after the cut; unchanged ones and -1 stay."""
    out: list[Any] = []
    for size, after, before in zip(sizes, new, old, strict=True):
        if after == before or size == -1:
            out.append(size)
        else:
            out.append(Scaled(size, before, after) if isinstance(size, Node) else after)
    return out


@rewrite("view", "reshape", "_unsafe_view", "view_copy", "expand", "expand_copy", "broadcast_to")
def sizes(survivors: Survivors, node: Node, bound: Arguments) -> None:
    """Literal sizes of the result."""
    value = survivors.of(node)
    assert value is not None
    key = next(k for k in ("size", "shape") if k in bound)
    bound[key] = _literals(bound[key], survivors.shape(value), value.shape)


@rewrite("repeat", "tile")
def repeats(survivors: Survivors, node: Node, bound: Arguments) -> None:
    """An axis of one that is repeated has as many copies as survivors."""
    x, out = survivors.of(bound["self"]), survivors.of(node)
    assert x is not None
    assert out is not None
    key = "repeats" if "repeats" in bound else "dims"
    lead = len(bound[key]) - x.ndim
    single = [dim < lead or x.shape[dim - lead] == 1 for dim in range(len(bound[key]))]
    wanted = survivors.shape(out)
    bound[key] = [
        n if one and isinstance(r, int) and n != s else r
        for r, n, s, one in zip(bound[key], wanted, out.shape, single, strict=True)
    ]


@rewrite("unflatten")
def unflatten(survivors: Survivors, node: Node, bound: Arguments) -> None:
    """Literal sizes of the split axis."""
    value = survivors.of(node)
    assert value is not None
    count = len(bound["sizes"])
    dim = int(bound["dim"]) % (value.ndim - count + 1)
    new = survivors.shape(value)[dim : dim + count]
    bound["sizes"] = _literals(bound["sizes"], new, value.shape[dim : dim + count])


@rewrite("slice", "narrow")
def bounds(survivors: Survivors, node: Node, bound: Arguments) -> None:
    """Bounds along a labelled axis count the survivors before them."""
    x = survivors.of(node.args[0])
    assert x is not None
    dim = int(bound.get("dim") or 0) % x.ndim
    axis, size = x.axes[dim], x.shape[dim]
    if axis is None:
        return
    start = bound.get("start") or 0
    start = start + size if start < 0 else start
    if "length" in bound:
        stop = start + bound["length"]
    else:
        end = bound.get("end")
        stop = size if end is None else min(size, end + size if end < 0 else end)
    first = survivors.count(axis, size, min(start, size))
    last = survivors.count(axis, size, stop)
    bound["start"] = first
    if "length" in bound:
        bound["length"] = last - first
    else:
        bound["end"] = last


@rewrite("split", "split_with_sizes", "chunk", "unsafe_split", "split_copy", "tensor_split")
def pieces(survivors: Survivors, node: Node, bound: Arguments) -> torch._ops.OpOverload | None:
    """Each piece keeps its own survivors, so that the sizes may differ."""
    source = next(iter(bound))
    x = survivors.of(bound[source])
    assert x is not None
    dim = int(bound.get("dim", 0)) % x.ndim
    if x.axes[dim] is None:
        return None
    new: list[int] = []
    start = 0
    for part in node.meta["val"]:
        stop = start + concrete_shape(part)[dim]
        before = survivors.count(x.axes[dim], x.shape[dim], start)
        new.append(survivors.count(x.axes[dim], x.shape[dim], stop) - before)
        start = stop
    bound.clear()
    bound.update({"self": node.args[0], "split_sizes": new, "dim": dim})
    operator: torch._ops.OpOverload = torch.ops.aten.split_with_sizes.default
    return operator


@rewrite("pad", "constant_pad_nd")
def pads(survivors: Survivors, node: Node, bound: Arguments) -> None:
    """Zeros around a labelled axis are channels of their own."""
    x, out = survivors.of(bound["self"]), survivors.of(node)
    assert x is not None
    assert out is not None
    amounts = list(bound["pad"])
    for i in range(len(amounts) // 2):
        dim = x.ndim - 1 - i
        axis = out.axes[dim]
        if axis is None:
            continue
        before, inside = amounts[2 * i], x.shape[dim]
        size = out.shape[dim]
        first = survivors.count(axis, size, before)
        upto = survivors.count(axis, size, before + inside)
        amounts[2 * i] = first
        amounts[2 * i + 1] = survivors.count(axis, size) - upto
    bound["pad"] = amounts


@rewrite("conv1d", "conv2d", "conv3d", "convolution")
def groups_of_convolution(survivors: Survivors, node: Node, bound: Arguments) -> None:
    """A depthwise convolution has as many groups as channels."""
    _depthwise(survivors, bound)


@rewrite("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def groups_of_transposed(survivors: Survivors, node: Node, bound: Arguments) -> None:
    """As for plain convolutions."""
    _depthwise(survivors, bound)


def _depthwise(survivors: Survivors, bound: Arguments) -> None:
    x, w = survivors.of(bound["input"]), survivors.of(bound["weight"])
    assert x is not None
    assert w is not None
    channel = x.ndim - (w.ndim - 2) - 1
    if concrete(bound["groups"]) > 1 and concrete(bound["groups"]) == x.shape[channel]:
        bound["groups"] = survivors.count(x.axes[channel], x.shape[channel])


@rewrite("group_norm", "native_group_norm")
def norm_groups(survivors: Survivors, node: Node, bound: Arguments) -> None:
    """Whole norm groups went, or (opt-in) every group lost as many channels."""
    x = survivors.of(bound["input"])
    assert x is not None
    key = "num_groups" if "num_groups" in bound else "group"
    axis, channels = x.axes[1], x.shape[1]
    if axis is None:
        return
    size = channels // bound[key]
    kept = [survivors.count(axis[i : i + size], size) for i in range(0, channels, size)]
    if set(kept) <= {0, size}:
        bound[key] = sum(1 for k in kept if k)
    if "C" in bound:
        bound["C"] = sum(kept)


@rewrite("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def normalised_shape(survivors: Survivors, node: Node, bound: Arguments) -> None:
    """Only where cutting a layer norm's channels was allowed."""
    x = survivors.of(bound["input"])
    assert x is not None
    depth = len(bound["normalized_shape"])
    bound["normalized_shape"] = survivors.shape(x)[x.ndim - depth :]


@rewrite("im2col", "col2im", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle")
def unchanged(survivors: Survivors, node: Node, bound: Arguments) -> None:
    """Their numbers count pixels or groups, which stay."""
