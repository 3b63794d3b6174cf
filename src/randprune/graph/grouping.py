"""From classes of labels to channel groups and cost polynomials.

A group holds the classes that occupy the same *multiset* of (tensor, axis) places. The places on
the axes of costed operations count too, so that every cost is a polynomial in the widths.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from randprune.cost import QuadraticCost
from randprune.graph.labels import IntArray
from randprune.graph.propagate import LabelledAxis, Propagation
from randprune.graph.rules import CostTerm
from randprune.space import ChannelGroup, FrozenChannels, Role, Slot

UNITS = {
    "macs": "multiply-adds",
    "params": "parameters",
    "activations": "elements of convolution and linear outputs",
    "attention_macs": "multiply-adds inside fused attention",
}


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """Groups in trace order, with the group of every label (-1: frozen)."""

    groups: tuple[ChannelGroup, ...]
    group_of: IntArray
    channel_of: IntArray


def group_channels(found: Propagation) -> Grouping:
    """The channel groups of a propagated graph."""
    _limit_degree(found)
    labels = found.labels
    everything = np.arange(len(labels), dtype=np.int64)
    roots = labels.find(everything)
    free = ~labels.is_frozen(everything)
    axis_of, position_of = found.origin()
    roles = found.context.role
    produced = np.zeros(len(labels), dtype=bool)
    producers = [label for label, (role, _) in roles.items() if role == "out"]
    produced[roots[np.array(producers, dtype=np.int64)]] = True
    live = np.flatnonzero(free & produced[roots])
    group_of = np.full(len(labels), -1, dtype=np.int64)
    channel_of = np.full(len(labels), -1, dtype=np.int64)

    classes = _classes(found, live, roots, axis_of)
    pools: dict[bytes, list[int]] = defaultdict(list)
    for root, (key, table) in classes.items():
        if table.size:
            pools[key].append(root)
    drafts: list[tuple[int, str, list[IntArray], list[int]]] = []
    for members in pools.values():
        tables = [classes[root][1] for root in members]
        order = _slot_order(tables[0], axis_of, roles)
        arranged = [_arrange(table, axis_of, order) for table in tables]
        arranged.sort(key=lambda table: tuple(position_of[table[0]]))
        drafts.append(_draft(arranged, order, found.axes, roles))
    drafts.sort(key=lambda draft: (draft[0], int(draft[2][0][0, 0])))

    groups: list[ChannelGroup] = []
    taken: dict[str, int] = {}
    for _, name, slots, order in drafts:
        number = taken[name] = taken.get(name, 0) + 1
        unique = name if number == 1 else f"{name}#{number}"
        built = tuple(
            Slot(
                found.axes[axis].tensor,
                found.axes[axis].dim,
                np.sort(position_of[table], axis=1),
                _role(roles, table),
            )
            for axis, table in zip(order, slots, strict=True)
        )
        for table in slots:
            group_of[table.reshape(-1)] = len(groups)
            channel_of[table.reshape(-1)] = np.repeat(np.arange(len(table)), table.shape[1])
        groups.append(ChannelGroup(unique, len(slots[0]), built))
    # Every label of a class belongs to its group, channel pads of emitted graphs included.
    live = live[group_of[live] >= 0]
    by_root = np.full(len(labels), -1, dtype=np.int64)
    channel_by_root = np.full(len(labels), -1, dtype=np.int64)
    by_root[roots[live]] = group_of[live]
    channel_by_root[roots[live]] = channel_of[live]
    group_of, channel_of = by_root[roots], channel_by_root[roots]
    sizes = _counts(found.context.counted, group_of, channel_of)
    numbers = _counts(found.context.numbered, group_of, channel_of)
    counted = [
        replace(group, sizes=tuple(sizes.get(g, ())), numbers=tuple(numbers.get(g, ())))
        for g, group in enumerate(groups)
    ]
    return Grouping(tuple(counted), group_of, channel_of)


def _counts(
    counted: Mapping[str, IntArray], group_of: IntArray, channel_of: IntArray
) -> dict[int, list[Slot]]:
    """Per group its places in what keeps a number of channels, by name, but owns no tensor."""
    out: dict[int, list[Slot]] = defaultdict(list)
    for layer, axis in counted.items():
        groups = np.where(axis < 0, -1, group_of[axis])
        for group in np.unique(groups[groups >= 0]).tolist():
            positions = np.flatnonzero(groups == group)
            order = np.argsort(channel_of[axis[positions]], kind="stable")
            width = int(channel_of[axis[positions]].max()) + 1
            out[group].append(Slot(layer, 0, positions[order].reshape(width, -1), "pass"))
    return out


def _classes(
    found: Propagation, live: IntArray, roots: IntArray, axis_of: IntArray
) -> dict[int, tuple[bytes, IntArray]]:
    """Per class its key and its labels on parameters and buffers."""
    places = [live[axis_of[live] >= 0]]
    kinds = [axis_of[places[0]]]
    offset = len(found.axes)
    is_live = np.zeros(len(roots), dtype=bool)
    is_live[live] = True
    for term in found.context.terms:
        for vector in term.axes:
            real = vector[vector >= 0]
            real = real[is_live[real]]
            if real.size and not term.kind.startswith("axis:"):
                places.append(real)
                kinds.append(np.full(real.size, offset, dtype=np.int64))
            offset += 1
    label = np.concatenate(places)
    kind = np.concatenate(kinds)
    root = roots[label]
    order = np.lexsort((label, kind, root))
    label, kind, root = label[order], kind[order], root[order]
    if not root.size:
        return {}
    starts = np.flatnonzero(np.diff(root, prepend=-1))
    ends = np.append(starts[1:], root.size)
    limit = len(found.axes)
    out: dict[int, tuple[bytes, IntArray]] = {}
    for start, end in zip(starts, ends, strict=True):
        kinds_here = kind[start:end]
        out[int(root[start])] = (
            kinds_here.tobytes(),
            label[start:end][kinds_here < limit],
        )
    return out


def _slot_order(
    labels: IntArray, axis_of: IntArray, roles: Mapping[int, tuple[Role, int]]
) -> list[int]:
    """Axis numbers of a class: producers first, in the order in which the network runs them."""
    seen: dict[int, tuple[int, int, int]] = {}
    for label in labels.tolist():
        axis = int(axis_of[label])
        role, order = roles.get(label, ("pass", 0))
        rank = (0 if role == "out" else 1, order if role != "pass" else 1 << 30, axis)
        seen[axis] = min(seen.get(axis, rank), rank)
    return sorted(seen, key=lambda axis: seen[axis])


def _arrange(labels: IntArray, axis_of: IntArray, order: list[int]) -> list[IntArray]:
    return [labels[axis_of[labels] == axis] for axis in order]


def _draft(
    arranged: list[list[IntArray]],
    order: list[int],
    axes: tuple[LabelledAxis, ...],
    roles: Mapping[int, tuple[Role, int]],
) -> tuple[int, str, list[IntArray], list[int]]:
    slots = [np.stack([table[i] for table in arranged]) for i in range(len(order))]
    first = int(slots[0][0, 0])
    run_order = roles.get(first, ("pass", 1 << 30))[1]
    name = axes[order[0]].tensor.rpartition(".")[0] or axes[order[0]].tensor
    return run_order, name, slots, order


def _role(roles: Mapping[int, tuple[Role, int]], table: IntArray) -> Role:
    return roles.get(int(table.flat[0]), ("pass", 0))[0]


def _limit_degree(found: Propagation) -> None:
    """Costs are quadratic: freeze the shortest axis of an operation with three free ones."""
    for term in found.context.terms:
        free = [v for v in term.axes if not bool(found.labels.is_frozen(v).all())]
        if len(free) > 2:
            for vector in sorted(free, key=len)[:-2]:
                found.labels.freeze(vector, "a product over three kinds of channels")


def frozen_channels(found: Propagation) -> tuple[FrozenChannels, ...]:
    """Every producing weight axis with frozen channels, and the reason of the first of them."""
    out: list[FrozenChannels] = []
    for axis in found.axes:
        vector = np.arange(axis.start, axis.start + axis.size, dtype=np.int64)
        role = found.context.role.get(axis.start, ("pass", 0))[0]
        if role != "out":
            continue
        frozen = found.labels.is_frozen(vector)
        if frozen.any():
            reason = found.labels.reason(int(vector[np.argmax(frozen)]))
            layer = axis.tensor.rpartition(".")[0] or axis.tensor
            out.append(
                FrozenChannels(layer, axis.tensor, axis.dim, int(frozen.sum()), axis.size, reason)
            )
    return tuple(out)


def build_costs(
    found: Propagation, grouping: Grouping, parameters: Mapping[str, tuple[int, ...]]
) -> dict[str, QuadraticCost]:
    """Exact polynomials for MACs, parameters and activations, per forward pass of the example."""
    full = np.array([group.width for group in grouping.groups], dtype=np.int64)
    kinds = {
        "macs": ("conv", "matmul"),
        "activations": ("activation",),
        "attention_macs": ("attention",),
    }
    costs = {}
    for name, members in kinds.items():
        terms = [term for term in found.context.terms if term.kind in members]
        costs[name] = _polynomial(name, terms, grouping, full)
    vectors: dict[str, dict[int, IntArray]] = defaultdict(dict)
    for axis in found.axes:
        vectors[axis.tensor][axis.dim] = np.arange(axis.start, axis.start + axis.size)
    terms = []
    for tensor, shape in parameters.items():
        own = vectors.get(tensor, {})
        rest = float(np.prod([s for dim, s in enumerate(shape) if dim not in own]))
        terms.append(CostTerm("params", rest, tuple(own.values())))
    costs["params"] = _polynomial("params", terms, grouping, full)
    return costs


def _polynomial(
    name: str, terms: list[CostTerm], grouping: Grouping, full: IntArray
) -> QuadraticCost:
    count = len(full)
    quadratic = np.zeros((count, count))
    linear = np.zeros(count)
    constant = 0.0
    for term in terms:
        scale = term.coefficient
        affine = []
        for vector in term.axes:
            slope, offset = _affine(vector, grouping, full)
            if slope.any():
                affine.append((slope, offset))
            else:
                scale *= offset
        if not affine:
            constant += scale
        elif len(affine) == 1:
            slope, offset = affine[0]
            linear += scale * slope
            constant += scale * offset
        else:
            (a, a0), (b, b0) = affine
            outer = scale * np.outer(a, b)
            quadratic += 0.5 * (outer + outer.T)
            linear += scale * (a0 * b + b0 * a)
            constant += scale * a0 * b0
    return QuadraticCost(name, UNITS[name], quadratic, linear, constant, full)


def _affine(vector: IntArray, grouping: Grouping, full: IntArray) -> tuple[IntArray, int]:
    """(positions per channel of each group, fixed positions) of one axis."""
    real = vector[vector >= 0]
    groups = grouping.group_of[real]
    inside = groups[groups >= 0]
    counts = np.bincount(inside, minlength=len(full))
    return counts // np.maximum(full, 1), int(vector.size - inside.size)
