"""What a network spends its time on: layers with two widths each, and everything else by size.

A layer's time depends on how many channels go in and come out, and on what never changes: kernel,
stride, groups, size of the map, and the activation that the runtime computes within it. Layers that
agree in all of this are one `Operator`, whose times are measured once. All other operations move or
change numbers: they count by how many (`Moved`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.fx import Node

from randprune.graph.execute import ExecutableGraph
from randprune.graph.layers import LAYERS, Geometry, geometry, norm_behind
from randprune.graph.propagate import Propagation
from randprune.graph.rules import concrete_shape, module_path
from randprune.graph.sites import dense_program, ownership
from randprune.graph.steps import Step
from randprune.space import IntArray, Space

Kind = Literal["convolution", "depthwise", "linear"]
Family = Literal["pointwise", "activation", "movement"]
FAMILIES: tuple[Family, ...] = ("pointwise", "activation", "movement")

# Operations that only give a tensor another shape or name.
_FREE = frozenset(
    {
        *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "getitem"),
        *("dropout", "feature_dropout", "alpha_dropout", "detach", "alias", "contiguous", "to"),
        *("split", "split_with_sizes", "chunk", "unbind", "select", "slice", "narrow", "clone"),
        *("sym_size", "lift_fresh_copy", "type_as", "view_as", "ravel", "_to_copy"),
        *("_assert_tensor_metadata", "arange", "zeros", "ones", "full", "empty", "scalar_tensor"),
    }
)
_ACTIVATIONS = frozenset(
    {
        *("silu", "sigmoid", "gelu", "hardswish", "hardsigmoid", "tanh", "mish", "elu", "softplus"),
        *("exp", "erf", "softmax", "log_softmax", "selu", "celu", "log_sigmoid"),
    }
)
_POINTWISE = frozenset(
    {
        *("add", "sub", "mul", "div", "relu", "relu6", "hardtanh", "clamp", "clamp_min", "neg"),
        *("leaky_relu", "prelu", "batch_norm", "maximum", "minimum", "where", "pow", "sqrt"),
        *("_native_batch_norm_legit_no_training", "rsub", "clamp_max", "abs", "square", "rsqrt"),
    }
)


@dataclass(frozen=True, slots=True)
class Operator:
    """A layer but for its widths.

    Attributes:
        kind: "depthwise" layers have one width, which goes in and comes out.
        lie: how its windows lie; of a linear layer nothing is said.
        size: of the map that it reads; of a linear layer the number of rows.
        batch: images.
        activation: what the runtime computes within it, "" for nothing.
    """

    kind: Kind
    lie: Geometry
    size: tuple[int, ...]
    batch: int
    activation: str = ""

    @property
    def key(self) -> str:
        """All of it in words, the same in every process."""
        lie = self.lie
        parts = [self.kind if not lie.transposed else f"transposed {self.kind}"]
        if lie.kernel:
            names = ("kernel", "stride", "padding", "dilation", "output_padding")
            parts += [f"{name} {_numbers(getattr(lie, name))}" for name in names]
            parts += [f"groups {lie.groups}"] if self.kind != "depthwise" else []
        parts += [f"on {_numbers(self.size)}", f"batch {self.batch}"]
        return ", ".join([*parts, self.activation] if self.activation else parts)


@dataclass(frozen=True, slots=True)
class Call:
    """A layer with its widths: channels that go in and that come out."""

    operator: Operator
    inputs: int
    outputs: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the tensor that it reads."""
        if self.operator.kind == "linear":
            return (*self.operator.size, self.inputs)
        return (self.operator.batch, self.inputs, *self.operator.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Of its weight, in torch's order."""
        lie = self.operator.lie
        if self.operator.kind == "linear":
            return (self.outputs, self.inputs)
        groups = self.groups
        if lie.transposed:
            return (self.inputs, self.outputs // groups, *lie.kernel)
        return (self.outputs, self.inputs // groups, *lie.kernel)

    @property
    def groups(self) -> int:
        """Of the convolution; 1 for a linear layer."""
        return self.inputs if self.operator.kind == "depthwise" else self.operator.lie.groups

    @property
    def numbers(self) -> int:
        """Of its input, weight and output together."""
        lie = self.operator.lie
        out = self.operator.size if not lie.kernel else lie.output_size(self.operator.size)
        rows = 1 if self.operator.kind == "linear" else self.operator.batch
        output = rows * self.outputs * math.prod(out)
        return math.prod(self.input_shape) + math.prod(self.weight_shape) + output


@dataclass(frozen=True, slots=True, eq=False)
class Width:
    """Channels along one axis: ``offset + slope @ widths``; `slope` is int64 (G,)."""

    slope: IntArray
    offset: int

    @property
    def groups(self) -> tuple[int, ...]:
        """The groups that it depends on."""
        return tuple(np.flatnonzero(self.slope).tolist())

    def of(self, widths: IntArray) -> IntArray:
        """Channels at widths (..., G), int64 (...)."""
        return np.asarray(widths @ self.slope + self.offset)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One layer of a network: an operator, and how its widths follow from a configuration."""

    name: str
    operator: Operator
    inputs: Width
    outputs: Width

    def call(self, widths: IntArray) -> Call:
        """The layer at a configuration (G,)."""
        return Call(self.operator, int(self.inputs.of(widths)), int(self.outputs.of(widths)))


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """Numbers that one operation, no layer, reads and writes: ``width.of(w) * each``."""

    name: str
    family: Family
    width: Width
    each: int


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """All that a network does, for one batch."""

    layers: tuple[Layer, ...]
    moved: tuple[Moved, ...]
    groups: int

    def numbers(self, family: Family) -> tuple[IntArray, int]:
        """Numbers that operations of a family read and write: slope (G,) and offset."""
        slope, offset = np.zeros(self.groups, dtype=np.int64), 0
        for part in self.moved:
            if part.family == family:
                slope += part.width.slope * part.each
                offset += part.width.offset * part.each
        return slope, offset


def work_of(model: nn.Module, space: Space, batch: int, absorbs: Collection[str]) -> Work:
    """What a network does for a batch, in the order in which it runs.

    Args:
        model: the dense network in evaluation mode; left untouched.
        space: its channel groups.
        batch: images.
        absorbs: operators that cost nothing behind a layer, see `Runtime`.
    """
    program, found, _ = dense_program(model, space, batch)
    graph = ExecutableGraph(program)
    group_of, _ = ownership(found, space)
    reader = _Reader(graph, found, group_of, space, batch, frozenset(absorbs))
    layers = tuple(reader.layers())
    return Work(layers, tuple(reader.moved()), len(space))


class _Reader:
    """Walks over the graph once for the layers, and once for the rest."""

    def __init__(
        self,
        graph: ExecutableGraph,
        found: Propagation,
        group_of: IntArray,
        space: Space,
        batch: int,
        absorbs: frozenset[str],
    ) -> None:
        self.graph, self.found, self.group_of = graph, found, group_of
        self.full, self.batch, self.absorbs = space.widths, batch, absorbs
        self.absorbed: set[Node] = set()

    def layers(self) -> Iterator[Layer]:
        for step in self.graph.steps.order:
            if step.operator in LAYERS and (layer := self._layer(step)) is not None:
                yield layer

    def moved(self) -> Iterator[Moved]:
        for step in self.graph.steps.order:
            node = step.node
            if step.operator in LAYERS or step.operator in _FREE or node in self.absorbed:
                continue
            if not isinstance(node.meta.get("val"), torch.Tensor) or self._constant(node):
                continue
            family = _family(step.operator)
            for each in (node, *(n for n in step.sources if not self._constant(n))):
                yield Moved(module_path(node) or node.name, family, *self._numbers(each))

    def _layer(self, step: Step) -> Layer | None:
        source, weight = step.args[0], step.args[1]
        shape = self._shape(weight)
        if not isinstance(source, Node) or self._constant(source) or not self._constant(weight):
            return None
        lie = geometry(step, shape[2:])
        entering, leaving = self._shape(source), self._shape(step.node)
        if lie.linear:
            axes = len(entering) - 1, len(leaving) - 1
            operator = Operator("linear", lie, (math.prod(entering[:-1]),), self.batch)
        else:
            axes = len(entering) - len(lie.kernel) - 1, len(leaving) - len(lie.kernel) - 1
            kind: Kind = "depthwise" if lie.depthwise(shape) else "convolution"
            if kind == "depthwise":  # its groups are its width
                lie = replace(lie, groups=1)
            operator = Operator(kind, lie, entering[axes[0] + 1 :], self.batch)
        operator = replace(operator, activation=self._activation(step))
        widths = self._width(source, axes[0]), self._width(step.node, axes[1])
        return Layer(module_path(step.node) or step.node.name, operator, *widths)

    def _activation(self, step: Step) -> str:
        """What the runtime computes within a layer; marks what it absorbs."""
        last = step.node
        if "batch_norm" in self.absorbs and (norm := norm_behind(self.graph, step)) is not None:
            last = norm[0].node
            self.absorbed.add(last)
        reader = self.graph.steps.only_reader(last)
        if reader is None or reader.operator not in self.absorbs:
            return ""
        self.absorbed.add(reader.node)
        return reader.operator

    def _numbers(self, node: Node) -> tuple[Width, int]:
        """Numbers of a tensor: the channels of its longest labelled axis, times the rest."""
        shape, value = self._shape(node), self.found.context.value(node)
        axes = [] if value is None else [d for d, a in enumerate(value.axes) if a is not None]
        if not axes:
            return Width(np.zeros_like(self.full), 1), math.prod(shape)
        axis = max(axes, key=lambda d: shape[d])
        return self._width(node, axis), math.prod(shape) // shape[axis]

    def _width(self, node: Node, axis: int) -> Width:
        value, size = self.found.context.value(node), self._shape(node)[axis]
        labels = None if value is None else value.axes[axis]
        if labels is None:
            return Width(np.zeros_like(self.full), size)
        roots = self.found.labels.find(labels)
        groups = np.where(roots >= 0, self.group_of[np.maximum(roots, 0)], -1)
        counts = np.bincount(groups[groups >= 0], minlength=len(self.full))
        return Width(counts // np.maximum(self.full, 1), int((groups < 0).sum()))

    def _shape(self, node: Node) -> tuple[int, ...]:
        value = node.meta.get("val")
        return concrete_shape(value) if isinstance(value, torch.Tensor) else ()

    def _constant(self, node: Node) -> bool:
        value = self.found.context.value(node)
        return value is None or value.const


def _family(operator: str) -> Family:
    if operator in _ACTIVATIONS:
        return "activation"
    return "pointwise" if operator in _POINTWISE else "movement"


def _numbers(values: tuple[int, ...]) -> str:
    return "x".join(map(str, values)) if values else "none"
