"""What layers are made of: their geometry, the batch norm behind them, and how it is folded in.

Everything that looks at convolutions, linear layers and batch norms in a traced graph reads them
here, whatever their number of axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from randprune.graph.execute import ExecutableGraph
from randprune.graph.steps import Step

TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")
LAYERS = (*CONVOLUTIONS, *TRANSPOSED, "linear")
BATCH_NORMS = ("batch_norm", "_native_batch_norm_legit_no_training")


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the windows of a layer lie on what it reads; D axes, none for a linear layer.

    Attributes:
        groups: of a grouped convolution.
        kernel, stride, dilation: one number an axis, (D,).
        padding: zeros around the input, (2 D,), in the order of `torch.nn.functional.pad`: before
            and after the last axis, then the one before it. What a transposed convolution takes
            off its output.
        transposed: whether each input position spreads to a window of the output.
        output_padding: of a transposed convolution, (D,).
    """

    groups: int = 1
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    transposed: bool = False
    output_padding: tuple[int, ...] = ()

    @property
    def linear(self) -> bool:
        """Whether it is a linear layer, whose channels are on the last axis."""
        return not self.kernel

    @property
    def taps(self) -> int:
        """Kernel positions: columns of the weight matrix per input channel."""
        return math.prod(self.kernel)

    def depthwise(self, weight: Sequence[int]) -> bool:
        """Whether every output channel reads one input channel, for a weight of this shape."""
        inputs = weight[0] // self.groups if self.transposed else weight[1]
        return self.groups > 1 and inputs == 1

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Size of the output map, (D,), for an input map of this size."""
        before, after = self.padding[-2::-2], self.padding[-1::-2]
        spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]
        margins = [a + b for a, b in zip(before, after, strict=True)]
        axes = zip(size, self.stride, margins, spans, strict=True)
        if self.transposed:
            extra = self.output_padding or (0,) * len(self.kernel)
            found = [(n - 1) * s - m + span + 1 for n, s, m, span in axes]
            return tuple(n + e for n, e in zip(found, extra, strict=True))
        return tuple((n + m - span - 1) // s + 1 for n, s, m, span in axes)


def geometry(step: Step, kernel: Sequence[int]) -> Geometry:
    """The geometry of a convolution with a kernel of this size (D,), or of a linear layer."""
    if step.operator == "linear":
        return Geometry()
    bound = step.bound()
    axes = len(kernel)
    size = tuple(int(k) for k in kernel)
    dilation = _each(bound["dilation"], axes)
    return Geometry(
        groups=int(bound["groups"]),
        kernel=size,
        stride=_each(bound["stride"], axes),
        padding=_margins(bound["padding"], size, dilation),
        dilation=dilation,
        transposed=step.operator in TRANSPOSED or bool(bound.get("transposed")),
        output_padding=_each(bound.get("output_padding", 0), axes),
    )


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """One number for each axis, where one or all of them are given."""
    numbers = [value] if isinstance(value, int) else list(value)
    return tuple(int(n) for n in (numbers * axes if len(numbers) == 1 else numbers))


def _margins(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """Zeros before and after each axis, the last axis first."""
    if padding == "valid":
        return (0, 0) * len(kernel)
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple(n for span in reversed(spans) for n in (span // 2, span - span // 2))
    each = _each(padding, len(kernel))
    return tuple(n for margin in reversed(each) for n in (margin, margin))


@dataclass(frozen=True, slots=True, eq=False)
class NormValues:
    """The numbers of a batch norm in evaluation mode, (C,) each; None for what it has not."""

    mean: Tensor
    variance: Tensor
    epsilon: float
    weight: Tensor | None
    bias: Tensor | None

    def affine(self, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Slope and offset (C,), float64: x + `bias` becomes x * slope + offset."""
        slope = torch.rsqrt(self.variance.double() + self.epsilon)
        if self.weight is not None:
            slope = slope * self.weight.double()
        mean = self.mean.double() if bias is None else self.mean.double() - bias.double()
        offset = -mean * slope
        return slope, offset if self.bias is None else offset + self.bias.double()

    def folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weight and bias of the layer that does what a layer and the norm behind it do.

        `weight` has the output channels on axis 0; the results have its type, and the new weight
        its memory order.
        """
        slope, shift = self.affine(bias)
        scale = slope.reshape(-1, *[1] * (weight.ndim - 1))
        return (weight.double() * scale).to(weight.dtype), shift.to(weight.dtype)


@dataclass(frozen=True, slots=True)
class Norm:
    """The names of a batch norm's tensors, "" for what it has not.

    `mean` and `variance` are "" where it normalises by each batch's own statistics.
    """

    weight: str
    bias: str
    mean: str
    variance: str
    epsilon: float

    def values(self, tensors: Mapping[str, Tensor]) -> NormValues:
        """Its numbers; it must have statistics."""
        weight = tensors[self.weight].detach() if self.weight else None
        bias = tensors[self.bias].detach() if self.bias else None
        mean, variance = (tensors[name].detach() for name in (self.mean, self.variance))
        return NormValues(mean, variance, self.epsilon, weight, bias)

    def affine(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Slope and offset (C,), float64: the norm is x * slope + offset."""
        return self.values(tensors).affine()


def norm_behind(graph: ExecutableGraph, layer: Step) -> tuple[Step, Norm] | None:
    """The step and the names of the batch norm that alone reads a layer's output.

    None where there is none, where it normalises another axis than the layer's channels, or where
    one of its tensors is no parameter or buffer.
    """
    reader = graph.steps.only_reader(layer.node)
    if reader is None or reader.operator not in BATCH_NORMS:
        return None
    # A linear layer's channels are last, a batch norm's second: one axis only if there are two.
    if layer.operator == "linear" and layer.node.meta["val"].ndim != 2:
        return None
    bound = reader.bound()
    if bound["input"] is not layer.node:
        return None
    tensors = [bound[key] for key in ("weight", "bias", "running_mean", "running_var")]
    names = [graph.tensor_name(tensor) for tensor in tensors]
    if any(tensor is not None and not name for tensor, name in zip(tensors, names, strict=True)):
        return None
    weight, bias, mean, variance = names
    if bound.get("training"):
        mean = variance = ""
    return reader, Norm(weight, bias, mean, variance, float(bound["eps"]))
