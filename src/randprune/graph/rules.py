"""The registry of operator rules, and what a rule can see and do.

A rule gets a node of the exported graph and the label vectors of its operands; it ties, freezes,
marks roles, records costs, and returns the label vectors of the result. There is no default rule:
an operation without one freezes what it touches and is listed by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.fx import Node

from randprune.graph.labels import FIXED, IntArray, Labels
from randprune.space import Role

__all__ = ["Context", "CostTerm", "Rule", "Value", "arguments", "registered", "rule"]

Axis: TypeAlias = IntArray | None
"""The labels along one axis, int64 (size,), or None where no position is a channel."""


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """Labels of one tensor in the graph.

    `axes[d]` holds the label of every position along axis d. `const`: computed from parameters,
    buffers and constants only, so that it acts as a weight.
    """

    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    const: bool = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def labelled(self) -> bool:
        return any(axis is not None for axis in self.axes)

    def labels(self) -> IntArray:
        """All labels on all axes, in one array."""
        present = [axis for axis in self.axes if axis is not None]
        return np.concatenate(present) if present else np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class CostTerm:
    """``coefficient * prod(axis size)`` for one operation; `axes` are the label vectors.

    Terms of a `kind` that no cost counts only tell channels apart that lie in different places.
    """

    kind: str
    coefficient: float
    axes: tuple[IntArray, ...]


@dataclass(slots=True)
class Context:
    """What rules act on: the labels, the roles, the cost terms, and the options of this trace."""

    labels: Labels
    as_graph: bool
    allow: frozenset[str]
    role: dict[int, tuple[Role, int]] = field(default_factory=dict)
    terms: list[CostTerm] = field(default_factory=list)
    inexact: list[str] = field(default_factory=list)
    carriers: dict[Node, int] = field(default_factory=dict)
    splits: dict[Node, list[tuple[IntArray, int]]] = field(default_factory=dict)
    counters: frozenset[str] = frozenset()
    counted: dict[str, IntArray] = field(default_factory=dict)
    numbered: dict[str, IntArray] = field(default_factory=dict)
    node: Node | None = None
    values: dict[Node, Any] = field(default_factory=dict)
    constant_of: Callable[[Node], torch.Tensor | None] = field(default=lambda node: None)

    # ------------------------------------------------------------------ looking at the graph

    def value(self, argument: Any) -> Value | None:
        """Labels of an argument, or None where it is no tensor."""
        found = self.values.get(argument) if isinstance(argument, Node) else None
        return found if isinstance(found, Value) else None

    def tensors(self, arguments: Iterable[Any]) -> list[Value]:
        """Labels of all tensors among (nested) arguments."""
        out: list[Value] = []
        for argument in arguments:
            if isinstance(argument, (list, tuple)):
                out.extend(self.tensors(argument))
            elif isinstance(argument, Node):
                found = self.values.get(argument)
                if isinstance(found, Value):
                    out.append(found)
                elif isinstance(found, tuple):
                    out.extend(v for v in found if isinstance(v, Value))
        return out

    def where(self) -> str:
        """`module.path` (operator) of the current node, for reasons."""
        assert self.node is not None
        return describe(self.node)

    def reason(self, why: str) -> str:
        """The reason with the place it arose at; the network's outputs are a place themselves."""
        assert self.node is not None
        return why if self.node.op == "output" else f"{why} in {self.where()}"

    # ------------------------------------------------------------------ acting on labels

    def freeze(self, labels: IntArray | None, why: str, kind: str = "") -> bool:
        """Freeze labels for a reason; False where the caller has allowed this `kind` of loss."""
        if labels is None or not labels.size:
            return True
        if kind and kind in self.allow:
            if not bool(self.labels.is_frozen(labels).all()):
                self.inexact.append(self.reason(why))
            return False
        self.labels.freeze(labels, self.reason(why))
        return True

    def freeze_all(self, values: Iterable[Value], why: str) -> None:
        """Freeze every label on these values."""
        for value in values:
            self.freeze(value.labels(), why)

    def tie(self, a: Axis, b: Axis, why: str) -> Axis:
        """Tie two axes position by position and return the common labels."""
        if a is None:
            self.freeze(b, why)
            return None
        if b is None:
            self.freeze(a, why)
            return None
        self.labels.tie(a, b, self.reason(why))
        return a

    def tie_within(self, labels: IntArray, why: str) -> None:
        """Tie the rows of a 2-D array of labels: all entries of a column become one class."""
        for row in labels[1:]:
            self.labels.tie(labels[0], row, self.reason(why))

    def is_frozen(self, axis: Axis) -> bool:
        """Whether nothing on the axis can be cut."""
        return axis is None or bool(self.labels.is_frozen(axis).all())

    def mark(self, axis: Axis, role: Role) -> None:
        """Note which part this weight axis plays: it produces channels, or it consumes them."""
        if axis is None:
            return
        order = len(self.terms)
        for label in axis.tolist():
            if label >= 0 and self.role.setdefault(label, (role, order))[0] != role:
                self.freeze(axis, "one weight axis both produces and consumes these channels")
                return

    def count(self, axis: Axis) -> None:
        """Note the channels of a layer that keeps their number, if the current one does.

        One number for all of its calls: what they get is tied.
        """
        assert self.node is not None
        layer = module_path(self.node)
        if axis is None or layer not in self.counters:
            return
        if layer in self.counted:
            self.tie(axis, self.counted[layer], "one layer normalises several tensors")
        else:
            self.counted[layer] = axis
            self.terms.append(CostTerm("size", 0.0, (axis,)))

    def spend(self, kind: str, coefficient: float, axes: Sequence[tuple[Axis, int]]) -> None:
        """Record a cost: coefficient times the product of (labels, size) axes."""
        fixed = float(coefficient)
        vectors: list[IntArray] = []
        for axis, size in axes:
            if axis is None:
                fixed *= size
            else:
                vectors.append(axis)
        self.terms.append(CostTerm(kind, fixed, tuple(vectors)))

    # ------------------------------------------------------------------ building results

    def shape(self, index: int | None = None) -> tuple[int, ...]:
        """Shape of the current node's result (of output `index` where it has several)."""
        assert self.node is not None
        meta = self.node.meta["val"]
        if index is not None:
            meta = meta[index]
        return concrete_shape(meta)

    def result(
        self, axes: Sequence[Axis], const: bool = False, shape: tuple[int, ...] | None = None
    ) -> Value:
        """A value for the current node.

        Labels that are frozen stay on it, so that what they meet later names the same reason.
        """
        return Value(self.shape() if shape is None else shape, tuple(axes), const)

    def fixed(self, const: bool = False, shape: tuple[int, ...] | None = None) -> Value:
        """A value without labels for the current node."""
        shape = self.shape() if shape is None else shape
        return Value(shape, (None,) * len(shape), const)

    def merge(self, values: Sequence[Value], shape: tuple[int, ...], why: str) -> list[Axis]:
        """Axes of a broadcast combination: what meets position by position is tied."""
        axes: list[Axis] = []
        for dim in range(len(shape)):
            full: list[Axis] = []
            for value in values:
                own = dim - (len(shape) - value.ndim)
                if own >= 0 and value.shape[own] == shape[dim] and shape[dim] > 1:
                    full.append(value.axes[own])
            if not full:
                axes.append(None)
                continue
            axis = full[0]
            for other in full[1:]:
                axis = self.tie(axis, other, why)
            axes.append(axis)
        return axes


def concrete_shape(tensor: torch.Tensor) -> tuple[int, ...]:
    """The tensor's shape as plain integers; a symbolic size gives its example value."""
    return tuple(int(s.node.hint) if isinstance(s, torch.SymInt) else int(s) for s in tensor.shape)


def concrete(argument: Any) -> Any:
    """An argument without graph nodes: sizes as the example's numbers, tensors as zeros."""
    if isinstance(argument, (list, tuple)):
        return [concrete(a) for a in argument]
    value = argument.meta["val"] if isinstance(argument, Node) else argument
    if isinstance(value, torch.Tensor):
        return torch.zeros(concrete_shape(value), dtype=value.dtype)
    return int(value.node.hint) if isinstance(value, torch.SymInt) else value


def with_fixed(axis: Axis, size: int) -> IntArray:
    """The axis as labels, FIXED where it has none."""
    return np.full(size, FIXED, dtype=np.int64) if axis is None else axis


def describe(node: Node) -> str:
    """`module.path` (operator) of a node."""
    return f"{module_path(node) or 'the network'} ({operator_name(node)})"


def module_path(node: Node) -> str:
    """Qualified name of the module whose forward issued this node, '' for the root."""
    stack = node.meta.get("nn_module_stack") or {}
    path = ""
    for entry in stack.values():
        name = entry[0] if isinstance(entry, tuple) else entry
        path = name if isinstance(name, str) else path
    for prefix in ("L__self__.", "L['self']."):
        path = path.removeprefix(prefix)
    return "" if path in ("L__self__", "L['self']") else path


def operator_name(node: Node) -> str:
    """The operator's name without its overload, e.g. 'softmax'."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket).removeprefix("aten.")
    return getattr(target, "__name__", str(target))


def arguments(node: Node) -> dict[str, Any]:
    """The node's arguments by schema name, defaults filled in."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    bound: dict[str, Any] = {}
    for position, argument in enumerate(target._schema.arguments):
        if position < len(node.args):
            bound[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            bound[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            bound[argument.name] = argument.default_value
    return bound


Rule = Callable[[Context, Node], Any]
_RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators by packet name ('conv2d' covers all its overloads).

    Raises:
        ValueError: an operator has a rule already.
    """

    def register(function: Rule) -> Rule:
        for operator in operators:
            if operator in _RULES:
                raise ValueError(f"The operator {operator!r} has a rule already.")
            _RULES[operator] = function
        return function

    return register


def rule_for(node: Node) -> Rule | None:
    """The rule of a node's operator, or None where there is none."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        packet = target.overloadpacket
        name = packet._qualified_op_name.removeprefix("aten::")
        in_place = name.endswith("_") and not name.endswith("__")
        return _RULES.get(name.removesuffix("_") if in_place else name)
    return None


def registered() -> tuple[str, ...]:
    """All operators that have a rule, sorted."""
    return tuple(sorted(_RULES))
