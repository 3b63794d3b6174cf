"""Rules for operations that treat every position alone: positions that meet are tied."""

from __future__ import annotations

from torch.fx import Node

from randprune.graph.rules import Context, Value, arguments, rule


@rule(
    *("abs", "acos", "acosh", "alias", "angle", "asin", "asinh", "atan", "atanh", "bernoulli"),
    *("bitwise_not", "ceil", "celu", "clone", "contiguous", "cos", "cosh", "detach", "digamma"),
    *("dropout", "elu", "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "feature_dropout"),
    *("fill", "floor", "frac", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh"),
    *("alpha_dropout", "feature_alpha_dropout", "isfinite", "isinf", "isnan", "leaky_relu"),
    *("lgamma", "lift_fresh_copy", "lift_fresh", "log", "log10", "log1p", "log2", "log_sigmoid"),
    *("log_sigmoid_forward", "logical_not", "logit", "mish", "nan_to_num", "native_dropout"),
    *("neg", "ones_like", "positive", "reciprocal", "relu", "relu6", "round", "rrelu"),
    *("rrelu_with_noise", "rsqrt", "selu", "sgn", "sigmoid", "sign", "silu", "sin", "sinc"),
    *("sinh", "softplus", "softshrink", "softsign", "sqrt", "square", "tan", "tanh"),
    *("threshold", "to", "_to_copy", "trunc", "type_as", "zeros_like", "full_like", "view_of"),
    *("_assert_tensor_metadata", "empty_like", "rand_like", "randn_like"),
)
def unary(ctx: Context, node: Node) -> Value | tuple[Value, ...]:
    """One tensor in, the same positions out (several outputs share them)."""
    values = ctx.tensors(node.args)
    x = values[0]
    ctx.freeze_all(values[1:], "an operand that this rule does not combine")
    if isinstance(node.meta["val"], (tuple, list)):
        return tuple(
            Value(ctx.shape(i), x.axes if ctx.shape(i) == x.shape else (None,) * len(ctx.shape(i)))
            for i in range(len(node.meta["val"]))
        )
    return ctx.result(x.axes, x.const)


@rule(
    *("add", "addcdiv", "addcmul", "atan2", "bitwise_and", "bitwise_or", "bitwise_xor"),
    *("clamp", "clamp_max", "clamp_min", "clip", "copy", "copysign", "div", "divide", "eq"),
    *("float_power", "floor_divide", "fmax", "fmin", "fmod", "ge", "greater", "gt"),
    *("heaviside", "hypot", "isclose", "le", "lerp", "less", "logaddexp", "logical_and"),
    *("logical_or", "logical_xor", "lt", "masked_fill", "maximum", "minimum", "mul", "multiply"),
    *("ne", "nextafter", "not_equal", "pow", "remainder", "rsub", "sub", "subtract"),
    *("true_divide", "where", "xlogy", "_prelu_kernel"),
)
def broadcast(ctx: Context, node: Node) -> Value:
    """Tensors combined position by position under broadcasting."""
    values = [*ctx.tensors(node.args), *ctx.tensors(node.kwargs.values())]
    axes = ctx.merge(values, ctx.shape(), "combined with channels that are fixed")
    return ctx.result(axes, all(value.const for value in values))


@rule("prelu")
def prelu(ctx: Context, node: Node) -> Value:
    bound = arguments(node)
    x, w = ctx.value(bound["self"]), ctx.value(bound["weight"])
    assert x is not None
    assert w is not None
    axes = list(x.axes)
    if w.shape and w.shape[-1] > 1:
        axes[1] = ctx.tie(axes[1], w.axes[-1], "one slope per fixed channel")
    return ctx.result(axes)


@rule("glu")
def glu(ctx: Context, node: Node) -> Value:
    bound = arguments(node)
    x = ctx.value(bound["self"])
    assert x is not None
    dim = int(bound["dim"]) % x.ndim
    axes = list(x.axes)
    axis = axes[dim]
    if axis is not None:
        half = x.shape[dim] // 2
        axes[dim] = ctx.tie(axis[:half], axis[half:], "gate and value share their channels")
    return ctx.result(axes, x.const)


@rule(
    *("arange", "empty", "eye", "full", "linspace", "new_empty", "new_full", "new_ones"),
    *("new_zeros", "ones", "rand", "randn", "scalar_tensor", "zeros", "lift", "_tensor_constant"),
    *("tril_indices", "triu_indices", "randint", "randperm", "empty_strided", "new_empty_strided"),
)
def creation(ctx: Context, node: Node) -> Value:
    """Tensors of a given size: their positions are no channels of any parameter."""
    return ctx.fixed(const=True)
