"""Rules for normalisation, softmax and reductions: what may depend on channels that are cut."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from randprune.graph.rules import Axis, Context, Value, arguments, rule


@rule(
    *("batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit"),
    *("_native_batch_norm_legit_functional", "native_batch_norm", "instance_norm"),
    *("_batch_norm_with_update", "_batch_norm_no_update", "cudnn_batch_norm"),
)
def batch_norm(ctx: Context, node: Node) -> Value | tuple[Value, ...]:
    """One mean and variance per channel: the parameters go with axis 1."""
    bound = arguments(node)
    x = ctx.value(bound["input"])
    assert x is not None
    from_input = bound.get("training") or bound.get("use_input_stats") or False
    has_stats = ctx.value(bound.get("running_mean")) is not None
    axes = list(x.axes)
    parameters = [
        ctx.value(bound.get(n)) for n in ("weight", "bias", "running_mean", "running_var")
    ]
    for parameter in parameters:
        if parameter is not None:
            axes[1] = ctx.tie(axes[1], parameter.axes[0], "normalises channels that are fixed")
    if not any(parameters):
        ctx.count(axes[1])
    if from_input or not has_stats:
        for dim, axis in enumerate(axes):
            if dim != 1:
                ctx.freeze(axis, "statistics are taken over these channels")
    if not isinstance(node.meta["val"], (tuple, list)):
        return ctx.result(axes, x.const)
    first = ctx.result(axes, x.const, ctx.shape(0))
    count = len(node.meta["val"])
    rest = tuple(
        ctx.result([axes[1]] if len(ctx.shape(i)) == 1 and ctx.shape(i)[0] == x.shape[1] else
                   [None] * len(ctx.shape(i)), x.const, ctx.shape(i))
        for i in range(1, count)
    )  # fmt: skip
    return (first, *rest)


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(ctx: Context, node: Node) -> Value | tuple[Value, ...]:
    """Statistics over the last axes: their channels change the result for all others."""
    bound = arguments(node)
    x = ctx.value(bound["input"])
    assert x is not None
    depth = len(bound["normalized_shape"])
    axes = list(x.axes)
    for offset in range(x.ndim - depth, x.ndim):
        if not ctx.freeze(axes[offset], "layer norm over channels", "layer_norm"):
            for name in ("weight", "bias"):
                parameter = ctx.value(bound.get(name))
                if parameter is not None:
                    own = parameter.axes[offset - (x.ndim - depth)]
                    axes[offset] = ctx.tie(axes[offset], own, "normalises fixed channels")
        else:
            for name in ("weight", "bias"):
                parameter = ctx.value(bound.get(name))
                if parameter is not None:
                    own = parameter.axes[offset - (x.ndim - depth)]
                    ctx.freeze(own, "layer norm over channels")
    if not isinstance(node.meta["val"], (tuple, list)):
        return ctx.result(axes, x.const)
    outputs = [ctx.result(axes, x.const, ctx.shape(0))]
    for i in range(1, len(node.meta["val"])):
        outputs.append(ctx.fixed(shape=ctx.shape(i)))
    return tuple(outputs)


@rule("group_norm", "native_group_norm")
def group_norm(ctx: Context, node: Node) -> Value | tuple[Value, ...]:
    """Statistics over groups of channels: exact only when whole groups go."""
    bound = arguments(node)
    x = ctx.value(bound["input"])
    assert x is not None
    groups = int(bound["num_groups"] if "num_groups" in bound else bound["group"])
    axes = list(x.axes)
    for axis in axes[2:]:
        ctx.freeze(axis, "statistics are taken over these channels")
    channels = axes[1]
    parameters = [ctx.value(bound[name]) for name in ("weight", "bias")]
    for parameter in parameters:
        if parameter is not None:
            channels = ctx.tie(channels, parameter.axes[0], "normalises fixed channels")
    if not any(parameters):
        ctx.count(channels)
    if channels is not None:
        table = channels.reshape(groups, -1)
        if "group_norm" in ctx.allow:
            ctx.freeze(channels, "group norm over channels", "group_norm")
            ctx.tie_within(table, "norm groups keep equal widths")
        elif groups == 1:
            ctx.freeze(channels, "group norm over all channels")
        else:
            ctx.tie_within(table.T, "the channels of a norm group go together")
    axes[1] = channels
    if not isinstance(node.meta["val"], (tuple, list)):
        return ctx.result(axes, x.const)
    first = ctx.result(axes, x.const, ctx.shape(0))
    return (first, *(ctx.fixed(shape=ctx.shape(i)) for i in range(1, len(node.meta["val"]))))


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(ctx: Context, node: Node) -> Value | tuple[Value, ...]:
    """``g * v / |v|``: one norm per position of `dim`, taken over all other axes of the weight."""
    bound = arguments(node)
    v, g = ctx.value(bound["v"]), ctx.value(bound["g"])
    assert v is not None
    assert g is not None
    kept = int(bound["dim"]) % v.ndim
    axes = list(v.axes)
    for dim, axis in enumerate(axes):
        if dim != kept:
            ctx.freeze(axis, "weight norm over these channels")
    if g.ndim == v.ndim:
        axes[kept] = ctx.tie(axes[kept], g.axes[kept], "weight norm of fixed channels")
    weight = ctx.result(axes, v.const and g.const, v.shape)
    if not isinstance(node.meta["val"], (tuple, list)):
        return weight
    return weight, ctx.fixed(shape=ctx.shape(1))


_REDUCTIONS = {
    "softmax": "softmax over channels",
    "mean": "mean over channels",
}


@rule(
    *("softmax", "_softmax", "log_softmax", "_log_softmax", "softmin", "cumsum", "cumprod"),
    *("logcumsumexp", "cummax", "cummin", "sort", "argsort", "topk", "kthvalue", "normalize"),
    "renorm",
)
def along_axis(ctx: Context, node: Node) -> Value | tuple[Value, ...]:
    """Each position depends on all others along one axis, which is therefore frozen."""
    bound = arguments(node)
    x = ctx.tensors(node.args)[0]
    dims = _dims(bound.get("dim"), x.ndim)
    kind = str(node.target).split(".")[1].strip("_").removeprefix("log_")
    for dim in dims:
        why = _REDUCTIONS.get(kind, f"{kind} over channels")
        ctx.freeze(x.axes[dim], why, kind)
    axes = [None if d in dims and kind in ("topk", "sort") else a for d, a in enumerate(x.axes)]
    return _outputs(ctx, node, axes, x)


@rule(
    *("mean", "sum", "amax", "amin", "max", "min", "prod", "var", "std", "var_mean", "std_mean"),
    *("norm", "linalg_vector_norm", "logsumexp", "argmax", "argmin", "any", "all", "median"),
    *("nanmean", "nansum", "count_nonzero", "aminmax", "mode", "nanmedian"),
)
def reduction(ctx: Context, node: Node) -> Any:
    """Axes that are reduced must hold no channels; the others keep theirs."""
    bound = arguments(node)
    operands = ctx.tensors(node.args)
    x = operands[0]
    if len(operands) == 2:
        merged = ctx.merge(operands, ctx.shape(), "combined with channels that are fixed")
        return ctx.result(merged, all(v.const for v in operands))
    dims = _dims(bound.get("dim"), x.ndim)
    kind = str(node.target).split(".")[1]
    for dim in dims:
        ctx.freeze(x.axes[dim], f"{kind} over channels", kind)
    axes: list[Axis] = []
    for dim, axis in enumerate(x.axes):
        if dim not in dims:
            axes.append(axis)
        elif bound.get("keepdim"):
            axes.append(None)
    return _outputs(ctx, node, axes, x)


def _dims(dim: Any, ndim: int) -> tuple[int, ...]:
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return tuple(range(ndim))
    return tuple(int(d) % max(ndim, 1) for d in (dim if isinstance(dim, (list, tuple)) else [dim]))


def _outputs(ctx: Context, node: Node, axes: list[Axis], x: Value) -> Value | tuple[Value, ...]:
    if isinstance(node.meta["val"], (tuple, list)):
        return tuple(ctx.result(axes, x.const, ctx.shape(i)) for i in range(len(node.meta["val"])))
    return ctx.result(axes, x.const)


@rule(
    *("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices"),
    *("max_pool3d_with_indices", "max_pool1d_with_indices", "avg_pool1d", "avg_pool2d"),
    *("avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool1d"),
    *("adaptive_max_pool2d", "adaptive_max_pool3d", "fractional_max_pool2d", "lp_pool2d"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d"),
    *("upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d"),
    *("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa"),
    *("_upsample_bicubic2d_aa", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d"),
    *("replication_pad1d", "replication_pad2d", "replication_pad3d", "_upsample_nearest_exact3d"),
)
def windows(ctx: Context, node: Node) -> Value | tuple[Value, ...]:
    """Pooling and resizing over the trailing axes; channels before them pass."""
    x = ctx.tensors(node.args)[0]
    name = str(node.target).split(".")[1]
    spatial = next(int(c) for c in reversed(name) if c.isdigit())
    for axis in x.axes[x.ndim - spatial :]:
        ctx.freeze(axis, "windows run along these channels")
    axes: list[Axis] = [*x.axes[: x.ndim - spatial], *[None] * spatial]
    return _outputs(ctx, node, axes, x)


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def grid_sampler(ctx: Context, node: Node) -> Value:
    """Sampling positions from a grid; channels pass."""
    x, grid = ctx.tensors(node.args)[:2]
    ctx.freeze_all([grid], "sampling positions")
    for axis in x.axes[2:]:
        ctx.freeze(axis, "sampling runs along these channels")
    return ctx.result([*x.axes[:2], *[None] * (x.ndim - 2)])
