"""Rules for data movement: the same operation is executed on the labels.

An axis keeps one label per position. Where a view splits an axis into several, or a concatenation
runs across labelled axes, a cut must still leave a rectangular tensor: the labels are tied across
all axes but one, the *carrier*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from randprune.graph.labels import FIXED, IntArray
from randprune.graph.rules import (
    Axis,
    Context,
    Value,
    arguments,
    concrete,
    rule,
    with_fixed,
)


def _expanded(x: Value, dim: int) -> torch.Tensor:
    """The labels of axis `dim` as a tensor of the value's shape; stride 0 on all other axes."""
    axis = x.axes[dim]
    assert axis is not None
    view = [1] * x.ndim
    view[dim] = -1
    return torch.from_numpy(axis).view(view).expand(x.shape)


def _absorb(ctx: Context, axes: list[Axis], moved: torch.Tensor) -> None:
    """Add the field of labels `moved` (the result's shape) to the result's axes."""
    varying = [d for d in range(moved.ndim) if moved.shape[d] > 1 and _varies(moved, d)]
    if not varying:
        if moved.numel() and moved.ndim:
            ctx.freeze(
                moved.reshape(-1)[:1].numpy(),
                "all channels here go together, so that none can go alone",
            )
        return
    carrier = varying[0]
    if len(varying) > 1:
        carrier = _carrier(ctx, moved, varying)
        rows = _rows(moved, carrier, varying)
        ctx.tie_within(rows, "the layout splits these channels over several axes")
        line = rows[0]
        assert ctx.node is not None
        ctx.splits.setdefault(ctx.node, []).append((line, len(varying)))
    else:
        index: list[Any] = [0] * moved.ndim
        index[carrier] = slice(None)
        line = moved[tuple(index)].numpy().copy()
    if ctx.is_frozen(axes[carrier]):
        axes[carrier] = line
    elif not ctx.is_frozen(line):
        ctx.freeze(line, "two kinds of channels are merged into one axis")
        ctx.freeze(axes[carrier], "two kinds of channels are merged into one axis")


def _varies(field: torch.Tensor, dim: int) -> bool:
    if field.stride(dim) == 0:
        return False
    thin = _thin(field, keep=None)
    return bool((thin != thin.select(dim, 0).unsqueeze(dim)).any())


def _thin(field: torch.Tensor, keep: int | None) -> torch.Tensor:
    """The field without repeats: one position of each axis that has stride 0."""
    for dim in range(field.ndim):
        if field.stride(dim) == 0 and dim != keep and field.shape[dim] > 1:
            field = field.narrow(dim, 0, 1)
    return field


def _rows(field: torch.Tensor, carrier: int, varying: Sequence[int]) -> IntArray:
    """The labels as (positions on the other varying axes, positions on the carrier)."""
    index = tuple(slice(None) if d in varying else 0 for d in range(field.ndim))
    small = field[index]
    place = sorted(varying).index(carrier)
    table = small.movedim(place, -1).reshape(-1, small.shape[place])
    return table.numpy().copy()


def _carrier(ctx: Context, field: torch.Tensor, varying: Sequence[int]) -> int:
    """Which of several axes the cut runs along: the longest, the innermost among equals."""
    assert ctx.node is not None
    order = sorted(varying, key=lambda d: (field.shape[d], d), reverse=True)
    return order[ctx.carriers.get(ctx.node, 0) % len(order)]


def _execute(ctx: Context, x: Value, function: Any, shape: tuple[int, ...]) -> list[Axis]:
    """Run a movement function on every labelled axis of x."""
    axes: list[Axis] = [None] * len(shape)
    for dim, axis in enumerate(x.axes):
        if axis is not None:
            _absorb(ctx, axes, function(_expanded(x, dim)))
    return axes


@rule(
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_copy", "_reshape_alias"),
    *("permute", "transpose", "t", "numpy_T", "movedim", "swapaxes", "adjoint", "mT"),
    *("squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to", "flip", "diagonal"),
    *("repeat", "tile", "unsqueeze_copy", "permute_copy", "expand_copy", "select", "slice"),
    *("narrow", "ravel", "view_as", "reshape_as", "repeat_interleave", "rot90", "as_strided"),
)
def movement(ctx: Context, node: Node) -> Value:
    """Pure rearrangements: executed on the labels as they stand."""
    assert isinstance(node.target, torch._ops.OpOverload)
    x = ctx.tensors(node.args)[0]
    name = str(node.target).split(".")[1]
    pattern = ctx.tensors(node.args)[1:]
    if name not in ("expand_as", "view_as", "reshape_as"):
        ctx.freeze_all(pattern, "an operand that gives the shape")
        pattern = []
    dims = arguments(node).get("dim")
    if name in ("slice", "narrow") and not ctx.as_graph and isinstance(dims, int):
        _tie_pieces(ctx, x, node, dims)
    if name == "slice" and isinstance(dims, int) and arguments(node)["step"] != 1:
        ctx.freeze(x.axes[dims % x.ndim], "every so many channels are picked by a step")
    if name == "select" and isinstance(dims, int):
        ctx.freeze(x.axes[dims % x.ndim], "one channel is picked by its number")
    shape = ctx.shape()
    if name in ("as_strided", "diagonal", "rot90") and x.labelled:
        ctx.freeze_all([x], f"{name} over channels")
        return ctx.fixed(x.const)
    rest = [concrete(a) for a in node.args[1:]]
    kwargs = {k: v for k, v in node.kwargs.items() if not isinstance(v, Node)}
    if name in ("view", "reshape", "_unsafe_view", "view_copy", "expand", "flatten", "unflatten"):

        def run(field: torch.Tensor) -> torch.Tensor:
            return field.expand(shape) if name == "expand" else field.reshape(shape)

        axes = _execute(ctx, x, run, shape)
    else:
        axes = _execute(ctx, x, lambda field: node.target(field, *rest, **kwargs), shape)
    if name in ("expand", "expand_as", "broadcast_to", "repeat", "tile"):
        _broadcast_axes(ctx, x, axes, shape)
    for other in pattern:
        axes = [ctx.tie(a, b, "shaped as a tensor with fixed channels")
                for a, b in zip(axes, other.axes, strict=True)]  # fmt: skip
    return ctx.result(axes, x.const)


def _broadcast_axes(ctx: Context, x: Value, axes: list[Axis], shape: tuple[int, ...]) -> None:
    """Positions copied from one are as many as the channels that they will meet."""
    lead = len(shape) - x.ndim
    for dim, size in enumerate(shape):
        if size > 1 and axes[dim] is None and (dim < lead or x.shape[dim - lead] == 1):
            axes[dim] = ctx.labels.fresh(size)


def _tie_pieces(ctx: Context, x: Value, node: Node, dim: int) -> None:
    """Tie the equal pieces that a slice belongs to.

    A module may compute its bounds from the shape (``x[:, :x.size(1) // 2]``), so that the pieces
    stay right only when they lose channels together. Literal bounds fail the trial cut.
    """
    dim %= x.ndim
    axis = x.axes[dim]
    size = ctx.shape()[dim]
    if axis is not None and 0 < size < x.shape[dim] and x.shape[dim] % size == 0:
        ctx.tie_within(axis.reshape(-1, size), "equal slices of one tensor")


@rule("split", "split_with_sizes", "chunk", "unbind", "tensor_split", "unsafe_split", "split_copy")
def split(ctx: Context, node: Node) -> tuple[Value, ...]:
    """Pieces of an axis; equal ones lose channels together where the module may use `chunk`."""
    bound = arguments(node)
    x = ctx.value(next(iter(bound.values())))
    assert x is not None
    dim = int(bound.get("dim", 0)) % x.ndim
    axis = x.axes[dim]
    outputs = len(node.meta["val"])
    if "unbind" in str(node.target):
        ctx.freeze(axis, "each position becomes a tensor of its own")
        axes = [a for d, a in enumerate(x.axes) if d != dim]
        return tuple(ctx.result(axes, x.const, ctx.shape(i)) for i in range(outputs))
    sizes = [ctx.shape(i)[dim] for i in range(outputs)]
    if axis is not None and not ctx.as_graph and len(set(sizes)) == 1 and outputs > 1:
        ctx.tie_within(axis.reshape(outputs, -1), "equal pieces of one tensor")
    pieces: list[Value] = []
    start = 0
    for i, size in enumerate(sizes):
        piece = None if axis is None else axis[start : start + size]
        start += size
        axes = [piece if d == dim else a for d, a in enumerate(x.axes)]
        pieces.append(ctx.result(axes, x.const, ctx.shape(i)))
    return tuple(pieces)


@rule("cat", "concat", "concatenate")
def concatenate(ctx: Context, node: Node) -> Value:
    """Labels in a row along the axis; tied across it on the others."""
    bound = arguments(node)
    shape = ctx.shape()
    dim = int(bound.get("dim", 0)) % len(shape)
    parts = [v for v in ctx.tensors([bound["tensors"]]) if v.ndim == len(shape)]
    axes = _others(ctx, parts, shape, dim)
    if any(v.axes[dim] is not None for v in parts):
        axes[dim] = np.concatenate([with_fixed(v.axes[dim], v.shape[dim]) for v in parts])
    return ctx.result(axes, all(v.const for v in parts))


@rule("stack")
def stack(ctx: Context, node: Node) -> Value:
    """A new axis without labels; the others are tied."""
    bound = arguments(node)
    shape = ctx.shape()
    dim = int(bound["dim"]) % len(shape)
    parts = ctx.tensors([bound["tensors"]])
    inner = shape[:dim] + shape[dim + 1 :]
    axes = _others(ctx, parts, inner, -1)
    return ctx.result([*axes[:dim], None, *axes[dim:]], all(v.const for v in parts))


def _others(ctx: Context, parts: Sequence[Value], shape: tuple[int, ...], skip: int) -> list[Axis]:
    axes: list[Axis] = []
    for d in range(len(shape)):
        axis: Axis = None
        if d != skip and shape[d] > 1:
            axis = parts[0].axes[d]
            for part in parts[1:]:
                axis = ctx.tie(axis, part.axes[d], "joined with channels that are fixed")
        axes.append(axis)
    return axes


@rule("pad", "constant_pad_nd")
def pad(ctx: Context, node: Node) -> Value:
    """Zeros around the trailing axes.

    In a module the widths of a channel pad are constants: the zeros are fixed. In an emitted
    graph they are recomputed, so that each zero is a channel that can go.
    """
    bound = arguments(node)
    x = ctx.value(bound["self"])
    assert x is not None
    amounts = [int(a) for a in bound["pad"]]
    zero = bound.get("mode", "constant") == "constant"
    axes = list(x.axes)
    shape = ctx.shape()
    for i in range(len(amounts) // 2):
        dim = x.ndim - 1 - i
        before, after = amounts[2 * i : 2 * i + 2]
        axis = axes[dim]
        if axis is None or (before == 0 and after == 0):
            continue
        if not zero or min(before, after) < 0:
            ctx.freeze(axis, "padding copies or crops these channels")
            axes[dim] = None
        elif ctx.as_graph:
            fresh = ctx.labels.fresh(before + after)
            axes[dim] = np.concatenate([fresh[:before], axis, fresh[before:]])
        else:
            ends = [np.full(n, FIXED, dtype=np.int64) for n in (before, after)]
            axes[dim] = np.concatenate([ends[0], axis, ends[1]])
    return ctx.result(axes, x.const, shape)


@rule("roll")
def roll(ctx: Context, node: Node) -> Value:
    """A cyclic shift; along channels its amount is a constant."""
    bound = arguments(node)
    x = ctx.value(bound["self"])
    assert x is not None
    dims = [int(d) % x.ndim for d in bound["dims"]] or list(range(x.ndim))
    for dim in dims:
        ctx.freeze(x.axes[dim], "shift along channels by a constant")
    return ctx.result([None if d in dims else a for d, a in enumerate(x.axes)], x.const)


@rule("pixel_shuffle")
def pixel_shuffle(ctx: Context, node: Node) -> Value:
    """(C r r, H, W) -> (C, H r, W r): the r*r channels of one output go together."""
    bound = arguments(node)
    x = ctx.value(bound["self"])
    assert x is not None
    area = int(bound["upscale_factor"]) ** 2
    axes = list(x.axes)
    axis = axes[-3]
    if axis is not None:
        table = axis.reshape(-1, area).T
        ctx.tie_within(table, "channels that become pixels of one channel")
        axes[-3] = table[0]
    return ctx.result(axes, x.const)


@rule("pixel_unshuffle")
def pixel_unshuffle(ctx: Context, node: Node) -> Value:
    """(C, H r, W r) -> (C r r, H, W): each channel becomes r*r neighbours."""
    bound = arguments(node)
    x = ctx.value(bound["self"])
    assert x is not None
    area = int(bound["downscale_factor"]) ** 2
    axes = list(x.axes)
    if axes[-3] is not None:
        axes[-3] = np.repeat(axes[-3], area)
    return ctx.result(axes, x.const)


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(ctx: Context, node: Node) -> Value:
    """Interleaves groups of channels; the groups keep equal widths."""
    bound = arguments(node)
    x = ctx.value(bound["self"])
    assert x is not None
    groups = int(bound["groups"])
    axes = list(x.axes)
    axis = axes[1]
    if axis is not None:
        table = axis.reshape(groups, -1)
        ctx.tie_within(table, "shuffled groups keep equal widths")
        axes[1] = table.T.reshape(-1).copy()
    return ctx.result(axes, x.const)


@rule("unfold")
def unfold(ctx: Context, node: Node) -> Value:
    """Sliding windows along one axis, which become a new last axis."""
    bound = arguments(node)
    x = ctx.value(bound["self"])
    assert x is not None
    dim = int(bound["dimension"]) % x.ndim
    ctx.freeze(x.axes[dim], "windows run along these channels")
    axes: list[Axis] = [None if d == dim else a for d, a in enumerate(x.axes)]
    return ctx.result([*axes, None], x.const)


@rule("im2col")
def im2col(ctx: Context, node: Node) -> Value:
    """(B, C, H, W) -> (B, C k k, L): each channel becomes k*k neighbours."""
    bound = arguments(node)
    x = ctx.value(bound["self"])
    assert x is not None
    area = int(np.prod(bound["kernel_size"]))
    for axis in x.axes[-2:]:
        ctx.freeze(axis, "windows run along these channels")
    channels = x.axes[-3]
    moved = None if channels is None else np.repeat(channels, area)
    return ctx.result([*x.axes[:-3], moved, None], x.const)


@rule("col2im")
def col2im(ctx: Context, node: Node) -> Value:
    """(B, C k k, L) -> (B, C, H, W): the k*k columns of one channel go together."""
    bound = arguments(node)
    x = ctx.value(bound["self"])
    assert x is not None
    area = int(np.prod(bound["kernel_size"]))
    ctx.freeze(x.axes[-1], "window positions")
    axis = x.axes[-2]
    if axis is not None:
        table = axis.reshape(-1, area).T
        ctx.tie_within(table, "columns that become pixels of one channel")
        axis = table[0]
    return ctx.result([*x.axes[:-2], axis, None, None], x.const)


@rule("index", "_unsafe_index")
def index(ctx: Context, node: Node) -> Value:
    """Indexing by tensors: indexed axes are frozen, the others keep their labels."""
    bound = arguments(node)
    x = ctx.value(bound["self"])
    assert x is not None
    indices = list(bound["indices"])
    ctx.freeze_all(ctx.tensors([indices]), "used as an index")
    shape = ctx.shape()
    for dim, which in enumerate(indices):
        if which is not None:
            ctx.freeze(x.axes[dim], "indexed by a constant")
    indexed = [d for d, which in enumerate(indices) if which is not None]
    if indexed != list(range(indexed[0], indexed[-1] + 1)):
        ctx.freeze_all([x], "indexed along separate axes")
        return ctx.fixed(x.const)
    depth = len(shape) - (x.ndim - len(indexed))
    middle: list[Axis] = [None] * depth
    axes = [*x.axes[: indexed[0]], *middle, *x.axes[indexed[-1] + 1 :]]
    return ctx.result(axes, x.const)


@rule("index_select", "gather", "take_along_dim")
def index_select(ctx: Context, node: Node) -> Value:
    """Selection along one axis, which is frozen."""
    bound = arguments(node)
    x = ctx.value(bound["self"])
    assert x is not None
    others = [v for v in ctx.tensors(node.args) if v is not x]
    ctx.freeze_all(others, "used as an index")
    dim = bound.get("dim")
    if not isinstance(dim, int) or str(node.target).split(".")[1] != "index_select":
        ctx.freeze_all([x], "gathered by an index")
        return ctx.fixed(x.const)
    dim %= x.ndim
    ctx.freeze(x.axes[dim], "indexed by a constant")
    return ctx.result([None if d == dim else a for d, a in enumerate(x.axes)], x.const)


@rule("slice_scatter", "select_scatter")
def scatter_slice(ctx: Context, node: Node) -> Value:
    """Writing into a slice: channels pass on the other axes, the written axis is frozen."""
    bound = arguments(node)
    x, source = ctx.tensors(node.args)[:2]
    dim = int(bound["dim"]) % x.ndim
    ctx.freeze(x.axes[dim], "written into along channels")
    own = list(source.axes)
    if "select" in str(node.target):
        own.insert(dim, None)
    axes: list[Axis] = []
    for d in range(x.ndim):
        if d == dim:
            ctx.freeze(own[d], "written into along channels")
            axes.append(None)
        else:
            axes.append(ctx.tie(x.axes[d], own[d], "written over channels that are fixed"))
    return ctx.result(axes, x.const and source.const)
