"""Run the exported graph on labels: every node through its rule, once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from randprune.graph.labels import IntArray, Labels
from randprune.graph.program import Program
from randprune.graph.rules import (
    Context,
    CostTerm,
    Value,
    concrete_shape,
    describe,
    operator_name,
    rule_for,
)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledAxis:
    """One labelled axis of a parameter or buffer: labels start .. start + size."""

    tensor: str
    dim: int
    start: int
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Propagation:
    """The labels after all rules have run."""

    context: Context
    axes: tuple[LabelledAxis, ...]
    values: dict[Node, Any]

    @property
    def labels(self) -> Labels:
        return self.context.labels

    def origin(self) -> tuple[IntArray, IntArray]:
        """For every label its axis number and its position there; -1 for channel pads."""
        axis = np.full(len(self.labels), -1, dtype=np.int64)
        position = np.full(len(self.labels), -1, dtype=np.int64)
        for number, a in enumerate(self.axes):
            axis[a.start : a.start + a.size] = number
            position[a.start : a.start + a.size] = np.arange(a.size)
        return axis, position


def propagate(
    program: Program,
    shapes: dict[str, tuple[int, ...]],
    as_graph: bool = False,
    allow: Collection[str] = (),
    carriers: dict[str, int] | None = None,
) -> Propagation:
    """Labels on every value of the program; `shapes` are those of parameters and buffers."""
    labels = Labels()
    ctx = Context(labels, as_graph, frozenset(allow), carriers=dict(carriers or {}))
    axes: list[LabelledAxis] = []
    values: dict[Node, Any] = ctx.values
    for node in program.graph.nodes:
        ctx.node = node
        if node.op == "placeholder":
            values[node] = _placeholder(ctx, program, node, shapes, axes)
        elif node.op == "call_function":
            values[node] = _call(ctx, node)
        elif node.op == "output":
            ctx.freeze_all(ctx.tensors([node.args]), "the network's output")
    for axis in axes:
        ctx.terms.append(_parameter_term(axis, axes))
    return Propagation(ctx, tuple(axes), values)


def _parameter_term(axis: LabelledAxis, axes: list[LabelledAxis]) -> CostTerm:
    vector = np.arange(axis.start, axis.start + axis.size, dtype=np.int64)
    return CostTerm(f"axis:{axis.tensor}:{axis.dim}", 1.0, (vector,))


def _placeholder(
    ctx: Context,
    program: Program,
    node: Node,
    shapes: dict[str, tuple[int, ...]],
    axes: list[LabelledAxis],
) -> Value | None:
    val = node.meta.get("val")
    if not isinstance(val, torch.Tensor):
        return None
    shape = concrete_shape(val)
    tensor = program.tensors.get(node.name)
    if tensor is None:
        return Value(shape, (None,) * len(shape), const=node.name in program.constants)
    if not val.is_floating_point() or not node.users or tensor not in shapes:
        return Value(shape, (None,) * len(shape), const=True)
    known = {axis.dim: axis for axis in axes if axis.tensor == tensor}  # under another name
    vectors: list[IntArray | None] = []
    for dim, size in enumerate(shape):
        if size == 1:
            vectors.append(None)
            continue
        if dim not in known:
            start = int(ctx.labels.fresh(size)[0])
            axes.append(LabelledAxis(tensor, dim, start, size))
            known[dim] = axes[-1]
        start = known[dim].start
        vectors.append(np.arange(start, start + size, dtype=np.int64))
    return Value(shape, tuple(vectors), const=True)


def _call(ctx: Context, node: Node) -> Any:
    name = operator_name(node)
    if name == "getitem":
        source, index = node.args
        found = ctx.values.get(source) if isinstance(source, Node) else None
        return found[index] if isinstance(found, tuple) and isinstance(index, int) else None
    if not isinstance(node.meta.get("val"), (torch.Tensor, tuple, list)):
        return None  # arithmetic on sizes
    found_rule = rule_for(node)
    if found_rule is not None:
        return found_rule(ctx, node)
    operands = ctx.tensors([*node.args, *node.kwargs.values()])
    ctx.freeze_all(operands, "an operator without a rule")
    return _unlabelled(node.meta.get("val"))


def _unlabelled(meta: Any) -> Any:
    if isinstance(meta, torch.Tensor):
        shape = concrete_shape(meta)
        return Value(shape, (None,) * len(shape))
    if isinstance(meta, (tuple, list)):
        return tuple(_unlabelled(m) for m in meta)
    return None


def unknown_operators(program: Program) -> list[str]:
    """`module (operator)` of every node without a rule."""
    return [describe(node) for node in program.unknown]
