"""Rules for what mixes channels linearly: convolutions, linear layers, matrix products, attention.

A contraction with a weight is exact under cutting: input channel k contributes through column k of
the weight only, so that both go together. A contraction of two activations has no weight that
could be zeroed: its contracted axis is frozen.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from torch.fx import Node

from randprune.graph.labels import IntArray
from randprune.graph.rules import Axis, Context, Value, arguments, concrete, rule


@rule("conv1d", "conv2d", "conv3d", "convolution")
def convolution(ctx: Context, node: Node) -> Value:
    bound = arguments(node)
    x, w, b = ctx.value(bound["input"]), ctx.value(bound["weight"]), ctx.value(bound.get("bias"))
    assert x is not None
    assert w is not None
    if bound.get("transposed"):
        return _transposed(ctx, x, w, b, concrete(bound["groups"]))
    return _forward(ctx, x, w, b, concrete(bound["groups"]))


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(ctx: Context, node: Node) -> Value:
    bound = arguments(node)
    x, w, b = ctx.value(bound["input"]), ctx.value(bound["weight"]), ctx.value(bound["bias"])
    assert x is not None
    assert w is not None
    return _transposed(ctx, x, w, b, concrete(bound["groups"]))


def _prepare(ctx: Context, x: Value, w: Value) -> int:
    """Freeze labels on kernel axes and on the axes that the kernel slides along."""
    spatial = w.ndim - 2
    channel = x.ndim - spatial - 1
    for axis in w.axes[2:]:
        ctx.freeze(axis, "kernel positions")
    for axis in x.axes[channel + 1 :]:
        ctx.freeze(axis, "the convolution runs along these channels")
    if not w.const:
        ctx.freeze_all([w], "the kernel is computed from activations")
        ctx.freeze(x.axes[channel], "the kernel is computed from activations")
    return channel


def _result(ctx: Context, x: Value, channel: int, out: Axis, spatial: int) -> Value:
    axes: list[Axis] = [*x.axes[:channel], out, *[None] * spatial]
    return ctx.result(axes, x.const)


def _forward(ctx: Context, x: Value, w: Value, b: Value | None, groups: int) -> Value:
    channel = _prepare(ctx, x, w)
    spatial = w.ndim - 2
    out_channels, in_per_group = w.shape[:2]
    x_in, w_out, w_in = x.axes[channel], w.axes[0], w.axes[1]
    out: Axis
    if groups == 1:
        ctx.mark(w_in, "in")
        ctx.mark(w_out, "out")
        ctx.tie(x_in, w_in, "input channels that are fixed meet this weight")
        out = w_out
    elif in_per_group == 1:
        ctx.mark(w_out, "out")
        multiplier = out_channels // groups
        repeated = None if x_in is None else np.repeat(x_in, multiplier)
        out = ctx.tie(repeated, w_out, "depthwise filters of fixed channels")
    else:
        ctx.mark(w_in, "in")
        ctx.mark(w_out, "out")
        ctx.tie(_tie_groups(ctx, x_in, groups), w_in, "grouped convolution of fixed channels")
        _tie_groups(ctx, w_out, groups)
        out = w_out
    if b is not None:
        out = ctx.tie(out, b.axes[0], "bias of fixed channels")
    positions = prod(ctx.shape()[channel + 1 :]) * prod(w.shape[2:]) * prod(x.shape[:channel])
    ctx.spend("conv", positions, [(out, out_channels), (w_in, in_per_group)])
    ctx.spend("activation", prod(ctx.shape()) // out_channels, [(out, out_channels)])
    return _result(ctx, x, channel, out, spatial)


def _transposed(ctx: Context, x: Value, w: Value, b: Value | None, groups: int) -> Value:
    channel = _prepare(ctx, x, w)
    spatial = w.ndim - 2
    in_channels, out_per_group = w.shape[:2]
    x_in, w_in, w_out = x.axes[channel], w.axes[0], w.axes[1]
    out: Axis
    if groups > 1 and in_channels == groups:
        ctx.mark(w_in, "out")
        kept = ctx.tie(x_in, w_in, "depthwise filters of fixed channels")
        if out_per_group > 1:
            ctx.freeze(w_out, "filters of a depthwise transposed convolution with a multiplier")
            w_out = None
        out = None if kept is None else np.repeat(kept, out_per_group)
    else:
        ctx.mark(w_in, "in")
        ctx.mark(w_out, "out")
        ctx.tie(x_in, w_in, "input channels that are fixed meet this weight")
        if groups > 1:
            _tie_groups(ctx, w_in, groups)
        out = w_out if groups == 1 or w_out is None else np.tile(w_out, groups)
    if b is not None:
        out = ctx.tie(out, b.axes[0], "bias of fixed channels")
    # torch's counter charges a transposed convolution by its input positions.
    positions = prod(x.shape[channel + 1 :]) * prod(w.shape[2:]) * prod(x.shape[:channel])
    ctx.spend("conv", positions, [(w_in, in_channels), (w_out, out_per_group)])
    channels = ctx.shape()[channel]
    ctx.spend("activation", prod(ctx.shape()) // channels, [(out, channels)])
    return _result(ctx, x, channel, out, spatial)


def _tie_groups(ctx: Context, axis: Axis, groups: int) -> Axis:
    """Tie the same local index across the groups; returns the labels of the first group."""
    if axis is None:
        return None
    table: IntArray = axis.reshape(groups, -1)
    ctx.tie_within(table, "groups of a convolution keep equal widths")
    first: IntArray = table[0]
    return first


@rule("linear")
def linear(ctx: Context, node: Node) -> Value:
    bound = arguments(node)
    x, w, b = ctx.value(bound["input"]), ctx.value(bound["weight"]), ctx.value(bound["bias"])
    assert x is not None
    assert w is not None
    if not w.const and not x.const:
        ctx.freeze(w.axes[-1], "product of two activations over channels")
        ctx.freeze(x.axes[-1], "product of two activations over channels")
    ctx.mark(w.axes[-1], "in")
    ctx.tie(x.axes[-1], w.axes[-1], "input features that are fixed meet this weight")
    out: Axis = None
    if w.ndim == 2:
        ctx.mark(w.axes[0], "out")
        out = w.axes[0]
        if b is not None:
            out = ctx.tie(out, b.axes[0], "bias of fixed features")
    elif b is not None:
        ctx.freeze_all([b], "bias of fixed features")
    lead = list(zip(x.axes[:-1], x.shape[:-1], strict=True))
    sizes: list[tuple[Axis, int]] = [*lead, (w.axes[-1], x.shape[-1])]
    if w.ndim == 2:
        sizes.append((out, w.shape[0]))
    ctx.spend("matmul", 1.0, sizes)
    if w.ndim == 2:
        ctx.spend("activation", 1.0, [*lead, (out, w.shape[0])])
    axes = [*x.axes[:-1], out] if w.ndim == 2 else list(x.axes[:-1])
    return ctx.result(axes, x.const and w.const)


@rule("mm", "bmm", "matmul", "mv", "dot", "vdot")
def matmul(ctx: Context, node: Node) -> Value:
    bound = list(arguments(node).values())
    a, b = ctx.value(bound[0]), ctx.value(bound[1])
    assert a is not None
    assert b is not None
    return _matmul(ctx, a, b)


@rule("addmm", "baddbmm")
def add_matmul(ctx: Context, node: Node) -> Value:
    bound = list(arguments(node).values())
    bias, a, b = (ctx.value(v) for v in bound[:3])
    assert a is not None
    assert b is not None
    product = _matmul(ctx, a, b)
    if bias is None:
        return product
    axes = ctx.merge([product, bias], ctx.shape(), "bias of fixed features")
    return ctx.result(axes, product.const and bias.const)


def _matmul(ctx: Context, a: Value, b: Value) -> Value:
    why = "product of two activations over channels"
    a_k = a.axes[-1]
    b_k = b.axes[-2] if b.ndim > 1 else b.axes[0]
    if a.const == b.const:
        if a.const:
            why = "product of two weights"
        ctx.freeze(a_k, why)
        ctx.freeze(b_k, why)
    else:
        weight, weight_k = (a, a_k) if a.const else (b, b_k)
        ctx.mark(weight_k, "in")
        for axis in weight.axes:
            if axis is not weight_k:
                ctx.mark(axis, "out")
    k = ctx.tie(a_k, b_k, "input features that are fixed meet this weight")
    m = [(a.axes[-2], a.shape[-2])] if a.ndim > 1 else []
    n = [(b.axes[-1], b.shape[-1])] if b.ndim > 1 else []
    shape = ctx.shape()
    lead = shape[: len(shape) - len(m) - len(n)]
    batch = ctx.merge(
        [Value(v.shape[:-2], v.axes[:-2], v.const) for v in (a, b) if v.ndim > 2],
        lead,
        "batched product over fixed channels",
    )
    if b.ndim > 1:  # torch's counter does not see products with a vector
        ctx.spend("matmul", 1.0, [*zip(batch, lead, strict=True), *m, *n, (k, a.shape[-1])])
    axes = [*batch, *[axis for axis, _ in m], *[axis for axis, _ in n]]
    return ctx.result(axes, a.const and b.const)


@rule("scaled_dot_product_attention")
def attention(ctx: Context, node: Node) -> Value:
    bound = arguments(node)
    q, k, v = (ctx.value(bound[name]) for name in ("query", "key", "value"))
    mask = ctx.value(bound["attn_mask"])
    assert q is not None
    assert k is not None
    assert v is not None
    for x in (q, k):
        ctx.freeze(x.axes[-1], "query and key channels meet in a product of activations")
    for x in (q, k, v):
        ctx.freeze(x.axes[-2], "softmax runs over tokens")
    if bound.get("enable_gqa"):
        ctx.freeze_all([q, k, v], "grouped-query attention shares heads")
    fused = q.ndim == 4 and q.shape[-1] == v.shape[-1]
    if fused:
        ctx.freeze(v.axes[-1], "fused attention needs equal head widths")
    lead = [Value(x.shape[:-2], x.axes[:-2]) for x in (q, k, v)]
    if mask is not None:
        for axis in mask.axes[-2:]:
            ctx.freeze(axis, "softmax runs over tokens")
        lead.append(Value(mask.shape[:-2], mask.axes[:-2]))
    shape = ctx.shape()
    batch = ctx.merge(lead, shape[:-2], "heads that are fixed")
    sizes: list[tuple[Axis, int]] = list(zip(batch, shape[:-2], strict=True))
    tokens = q.shape[-2] * k.shape[-2]
    # torch's counter sees the two products only where no fused kernel runs.
    kind = "attention" if fused else "matmul"
    ctx.spend(kind, float(tokens), [*sizes, (None, q.shape[-1])])
    ctx.spend(kind, float(tokens), [*sizes, (v.axes[-1], v.shape[-1])])
    return ctx.result([*batch, None, v.axes[-1]])


@rule("gru", "rnn_tanh", "rnn_relu")
def recurrent(ctx: Context, node: Node) -> tuple[Value, ...]:
    """Recurrent layers keep their sizes: a state meets all weights in every step.

    (torch computes an LSTM in one operator that its counter does not see; it has no rule.)
    """
    bound = arguments(node)
    x = ctx.tensors(node.args)[0]
    ctx.freeze_all(ctx.tensors(node.args), "a recurrent layer keeps its sizes")
    steps = prod(x.shape[:2])
    for weight in ctx.tensors([bound["params"]]):
        if weight.ndim == 2:
            ctx.spend("matmul", float(steps * prod(weight.shape)), [])
    return tuple(ctx.fixed(shape=ctx.shape(i)) for i in range(len(node.meta["val"])))


@rule("embedding")
def embedding(ctx: Context, node: Node) -> Value:
    bound = arguments(node)
    w, index = ctx.value(bound["weight"]), ctx.value(bound["indices"])
    assert w is not None
    ctx.freeze(w.axes[0], "looked up by index")
    lead: list[Any] = list(index.axes) if index is not None else []
    lead = lead or [None] * (len(ctx.shape()) - 1)
    ctx.mark(w.axes[1], "out")
    return ctx.result([*lead, w.axes[1]])


@rule("bilinear")
def bilinear(ctx: Context, node: Node) -> Value:
    bound = arguments(node)
    w = ctx.value(bound["weight"])
    values = ctx.tensors(node.args)
    assert w is not None
    for value in values:
        if value is not w:
            ctx.freeze(value.axes[-1], "bilinear product of activations")
    ctx.freeze(w.axes[1], "bilinear product of activations")
    ctx.freeze(w.axes[2], "bilinear product of activations")
    return ctx.fixed()
