"""Run the exported graph on labels: every node through its rule, once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
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

Exits = Callable[[Program], "Sequence[str | None] | None"] | None


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

    @property
    def free(self) -> int:
        """How many positions of weights that a layer produces or consumes can be cut."""
        marked = np.array(list(self.context.role), dtype=np.int64)
        return int((~self.labels.is_frozen(marked)).sum())

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
    training: Program | None = None,
    counters: Collection[str] = (),
    exits: Exits = None,
) -> Propagation:
    """Labels on every value of the program; `shapes` are those of parameters and buffers.

    `training` is the same network's program in training mode, where parts of it run only there
    (auxiliary classifiers): its operations tie and freeze the same labels, but cost nothing.
    `counters` names the layers that keep a number of channels but own no tensor.
    `exits` tells for each output leaf of a program why its channels stay; None: they may go.

    Where a view splits channels over several axes, the cut runs along one of them (attention:
    within the heads, or whole heads). The longest is tried first; where that leaves the channels
    frozen, the next one is, and the choice that frees more channels stays.
    """
    programs = [program] if training is None else [program, training]

    def run(carriers: dict[Node, int]) -> Propagation:
        ctx = Context(
            Labels(), as_graph, frozenset(allow), carriers=carriers, counters=frozenset(counters)
        )
        return _propagate_once(ctx, programs, shapes, exits)

    best = run({})
    for option in (1, 2):
        stuck = _stuck_splits(best, option)
        # Splits in a row (in-projection, then heads) differ in length: each kind is also turned
        # alone.
        kinds = [[n for n, size in stuck.items() if size == length] for length in
                 dict.fromkeys(stuck.values())]  # fmt: skip
        for names in [list(stuck), *(kinds if 1 < len(kinds) <= 4 else [])]:
            turned = {**best.context.carriers, **dict.fromkeys(names, option)}
            other = run(turned) if names else best
            if other.free > best.free:
                best = other
    return best


def _stuck_splits(found: Propagation, option: int) -> dict[Node, int]:
    """Views with more than `option` axes to choose from whose channels are frozen, by length."""
    return {
        node: len(line)
        for node, splits in found.context.splits.items()
        for line, count in splits
        if count > option and found.context.is_frozen(line)
    }


def _propagate_once(
    ctx: Context,
    programs: Sequence[Program],
    shapes: dict[str, tuple[int, ...]],
    exits: Exits,
) -> Propagation:
    axes: list[LabelledAxis] = []
    terms: list[CostTerm] = []
    for program in programs:
        for node in program.graph.nodes:
            ctx.node = node
            if node.op == "placeholder":
                ctx.values[node] = _placeholder(ctx, program, node, shapes, axes)
            elif node.op == "call_function":
                ctx.values[node] = _call(ctx, node)
            elif node.op == "output":
                _leave(ctx, node, None if exits is None else exits(program))
        terms = terms or list(ctx.terms)  # those of the first program, which is the one that counts
    ctx.terms = terms + [_parameter_term(axis) for axis in axes]
    return Propagation(ctx, tuple(axes), ctx.values)


def _leave(ctx: Context, node: Node, reasons: Sequence[str | None] | None) -> None:
    """Freeze what leaves the program; `reasons` are those of its last outputs, the user's."""
    if reasons is None:
        ctx.freeze_all(ctx.tensors([node.args]), "it defines the network's output")
        return
    (flat,) = node.args
    assert isinstance(flat, list | tuple)
    for value, reason in zip(flat[len(flat) - len(reasons) :], reasons, strict=True):
        if reason is not None:
            ctx.freeze_all(ctx.tensors([value]), reason)


def _parameter_term(axis: LabelledAxis) -> CostTerm:
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
    return _unlabelled(node.meta.get("val"), all(value.const for value in operands))


def _unlabelled(meta: Any, const: bool) -> Any:
    if isinstance(meta, torch.Tensor):
        shape = concrete_shape(meta)
        return Value(shape, (None,) * len(shape), const)
    if isinstance(meta, (tuple, list)):
        return tuple(_unlabelled(m, const) for m in meta)
    return None


def unknown_operators(program: Program) -> list[str]:
    """`module (operator)` of every node without a rule."""
    return [describe(node) for node in program.unknown]
