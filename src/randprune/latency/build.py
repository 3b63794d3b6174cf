"""Build the latency cost of a network: time its layers, then correct it by whole networks.

Method. The layers of the network, over all widths that a configuration can have, are timed in the
runtime itself (`randprune.latency.table`). A dozen whole networks of random widths are timed, too.
Milliseconds are then a weighted sum: of each layer's table, one weight a kind of layer and a
smaller correction an operator; of the numbers that other operations move, one rate a family; and of
a constant. Ridge regression towards "tables are right" finds the weights, so that a dozen networks
suffice. The constant may be negative: in a narrow network everything lies in the cache, which it
does not where layers are timed side by side. Each network is also predicted by weights from the
others alone: the error that is stated.

Known shortcomings. Layout conversions count with the operations of their size, not by themselves.
Networks of several inputs, and times on a GPU, are timed as a whole only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from randprune.cost import FloatArray
from randprune.errors import InvalidInputError, UnsupportedModelError, quoted
from randprune.latency.cost import LatencyCost, Part, Setting
from randprune.latency.operators import FAMILIES, Layer, Width, Work, work_of
from randprune.latency.runtime import Runner, Runtime
from randprune.latency.table import Axis, Times, keep, kept_in, read_kept, surface, wanted
from randprune.latency.timing import named_runtime
from randprune.space import IntArray, Selection, Space
from randprune.strategies.feasible import WidthGrid
from randprune.surgery import cut

NETWORKS = 12
"""Whole networks that are measured, the dense one included."""
NOISY = 0.1
"""A machine is too noisy to decide where the same network's times differ by more than this."""

# A network runs for about so long at a time, so that one moment's load does not decide; so many
# times at least, and at most.
_WINDOW_MS, _LEAST_RUNS, _MOST_RUNS = 600.0, 8, 100
_PASSES = 3
# What a number costs before anything is known, in milliseconds.
_RATES = {"pointwise": 4e-7, "activation": 2e-6, "movement": 6e-7}
_OVERHEAD = 0.002
# How firmly weights are held to their first guess: kinds of layers, single operators, the rest.
_DENSE = 3.0
_KIND, _SINGLE, _REST, _CONSTANT = 0.01, 0.01, 1e-3, 1e-4

Tell = Callable[[int, int], None]
"""Told how many of how many networks are measured."""


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """A network's layers with their unweighted tables."""

    work: Work
    parts: tuple[Part, ...]


def latency_cost(
    model: nn.Module,
    space: Space,
    setting: Setting,
    *,
    step: int = 1,
    folder: str | os.PathLike[str] | None = None,
    runtime: Runtime | None = None,
    tell: Tell = lambda done, total: None,
) -> LatencyCost:
    """The latency of a network's configurations on this machine.

    Args:
        model: the dense network on the CPU; not modified.
        space: its channel groups.
        setting: runtime, threads and batch size.
        step: widths are multiples of it, or full: fewer times are measured for a greater step.
        folder: where measured times are kept; default: see `kept_in`.
        runtime: instead of the one that the setting names.
        tell: is told how far it is.

    Raises:
        InvalidInputError: the runtime is unknown or not installed, or a number is out of range.
        UnsupportedModelError: no runtime can run the network.
    """
    _check(setting)
    engine = runtime or named_runtime(setting.runtime)
    version = engine.version()
    try:
        return _measured(model, space, setting, step, folder, engine, version, tell)
    except UnsupportedModelError as error:
        if engine.name == "torch":
            raise
        note = (
            f"The network cannot run in {engine.name}, so that its latency is measured in torch: "
            f"{error}"
        )
        other = replace(setting, runtime="torch")
        found = latency_cost(model, space, other, step=step, folder=folder, tell=tell)
        return replace(found, notes=(note, *found.notes))


def _check(setting: Setting) -> None:
    for name in ("threads", "batch"):
        value = getattr(setting, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidInputError(
                f"The {name!r} of a latency must be an integer of at least 1. Got {quoted(value)}."
            )


def _measured(
    model: nn.Module,
    space: Space,
    setting: Setting,
    step: int,
    folder: str | os.PathLike[str] | None,
    engine: Runtime,
    version: str,
    tell: Tell,
) -> LatencyCost:
    work = work_of(model, space, setting.batch, engine.absorbs)
    kept = kept_in(folder, f"{engine.name}-{version}", setting.threads)
    rows = configurations(space, step)
    # Networks come first: one that the runtime cannot run is found before its layers are timed.
    times, spread = _networks(model, space, setting, engine, kept, work, rows, tell)
    tables = _tables(
        work, space, step, Times(kept, lambda c: engine.operators_ms(c, setting.threads))
    )
    columns, kinds = _columns(tables, rows)
    weights = _fit(columns, times, kinds)
    foretold = np.array(
        [
            columns[i] @ _fit(np.delete(columns, i, 0), np.delete(times, i), kinds)
            for i in range(len(rows))
        ]
    )
    cost = _weighted(tables, weights, kinds, space)
    notes: tuple[str, ...] = ()
    if spread > NOISY:
        notes = (
            "The machine is noisy: in every other measurement the dense network took "
            f"{spread:.0%} more than its least latency. Stop other work and measure again.",
        )
    return replace(
        cost,
        setting=setting,
        version=version,
        step=step,
        checked=rows,
        measured_ms=times,
        foretold_ms=foretold,
        spread=spread,
        notes=notes,
    )


def configurations(space: Space, step: int, count: int = NETWORKS) -> IntArray:
    """The dense configuration and others that spread over all costs, int64 (count, G)."""
    rng = np.random.default_rng(0)
    grid = WidthGrid.of(space, 0.0, step)
    # Wide layers beside narrow ones, as searches propose them, around a small or a great mean.
    powers = np.geomspace(2.0, 0.2, count - 1)[:, None]
    keep_ratios = 0.1 + 0.9 * rng.random((count - 1, len(space))) ** powers
    drawn = grid.snap(keep_ratios * grid.full).astype(np.int64)
    return np.concatenate([space.widths[None], drawn])


def network_of(model: nn.Module, space: Space, widths: IntArray) -> nn.Module:
    """The network with the first channels of every group: as fast as any of its widths."""
    kept = tuple(np.arange(width, dtype=np.int64) for width in widths.tolist())
    return cut(model, space, Selection(kept, space.fingerprint))


@dataclass(frozen=True, slots=True)
class Paired:
    """Milliseconds of a batch of two networks that ran in turns, as on a quiet machine.

    `spread`: how much the two measurements of one network differ, the greater of both, as a share.
    """

    first_ms: float
    second_ms: float
    spread: float

    @property
    def ratio(self) -> float:
        """What the second takes as a share of the first."""
        return self.second_ms / self.first_ms


def paired_ms(first: Runner, second: Runner) -> Paired:
    """Two networks side by side, each measured twice."""
    found = []
    for runner in (first, second, second, first):
        once = runner.clock(1)
        runs = int(min(_MOST_RUNS, max(_LEAST_RUNS, _WINDOW_MS / max(once, 1e-3))))
        found.append(runner.fastest(runs))
    pairs = (found[0], found[3]), (found[1], found[2])
    spread = max(abs(a - b) / min(a, b) for a, b in pairs)
    return Paired(min(pairs[0]), min(pairs[1]), spread)


def inputs_for(space: Space, batch: int) -> tuple[torch.Tensor, ...]:
    """Random inputs of a batch."""
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn((batch, *shape[1:]), generator=generator).to(getattr(torch, dtype))
        for shape, dtype in space.inputs
    )


def _networks(
    model: nn.Module,
    space: Space,
    setting: Setting,
    engine: Runtime,
    kept: Path,
    work: Work,
    rows: IntArray,
    tell: Tell,
) -> tuple[FloatArray, float]:
    """Milliseconds of whole networks (M,), and how much the dense one's differed."""
    identity = [space.fingerprint, str(setting.batch), *(x.operator.key for x in work.layers)]
    digest = hashlib.sha256("\n".join(identity).encode() + rows.tobytes()).hexdigest()[:12]
    file = kept / f"network-{digest}.json"
    document = read_kept(file)
    times = [float(t) for t in document.get("milliseconds", [])]
    if len(times) == len(rows):
        return np.array(times), float(document.get("spread", 0.0))
    inputs = inputs_for(space, setting.batch)
    dense = engine.prepare(model, inputs, setting.threads)
    beside, ratios = [], [1.0]
    for done, widths in enumerate(rows[1:], start=1):
        tell(done, len(rows))
        small = engine.prepare(network_of(model, space, widths), inputs, setting.threads)
        found = paired_ms(dense, small)
        beside.append(found.first_ms)
        ratios.append(found.ratio)
    tell(len(rows), len(rows))
    # The machine's speed drifts with its load: each network counts as a share of the dense one,
    # which ran beside it.
    times = [min(beside) * ratio for ratio in ratios]
    spread = median(beside) / min(beside) - 1.0
    keep(file, {"widths": rows.tolist(), "milliseconds": times, "spread": spread})
    return np.array(times), spread


def _tables(work: Work, space: Space, step: int, times: Times) -> _Tables:
    grid = WidthGrid.of(space, 0.0, step)
    levels = [grid.levels(g).astype(np.int64) for g in range(len(space))]
    axes = [
        (Axis(_reached(layer.inputs, levels)), Axis(_reached(layer.outputs, levels)))
        for layer in work.layers
    ]
    asked = [
        call
        for layer, (inputs, outputs) in zip(work.layers, axes, strict=True)
        for call in wanted(layer.operator, inputs, outputs)
    ]
    times.prepare(asked)
    made: dict[Any, FloatArray] = {}
    parts = []
    for layer, (inputs, outputs) in zip(work.layers, axes, strict=True):
        key = (layer.operator, inputs.widths.tobytes(), outputs.widths.tobytes())
        if key not in made:
            made[key] = surface(layer.operator, inputs, outputs, times)
        parts.append(_part(layer, inputs, outputs, made[key], space))
    return _Tables(work, tuple(parts))


def _reached(width: Width, levels: Sequence[IntArray]) -> IntArray:
    """The channels that an axis can have, ascending; of many groups their possible sums."""
    found = np.array([width.offset], dtype=np.int64)
    for g in width.groups:
        found = np.unique(found[:, None] + width.slope[g] * levels[g][None])
    return found


def _part(layer: Layer, inputs: Axis, outputs: Axis, table: FloatArray, space: Space) -> Part:
    def places(axis: Axis, width: Width) -> IntArray:
        """For 0, 1, ... channels the place of the next greater width that was looked at."""
        channels = np.arange(int(width.of(space.widths)) + 1)
        return np.minimum(np.searchsorted(axis.widths, channels), len(axis.widths) - 1)

    columns = places(outputs, layer.outputs)
    if layer.operator.kind == "depthwise":
        columns = np.zeros_like(columns)
    return Part(
        layer.name, layer.inputs, layer.outputs, places(inputs, layer.inputs), columns, table
    )


def _columns(tables: _Tables, rows: IntArray) -> tuple[FloatArray, list[tuple[str, float]]]:
    """What weights multiply, (M, W), in milliseconds; and each weight's name and firmness."""
    found: dict[str, FloatArray] = {}
    for layer, part in zip(tables.work.layers, tables.parts, strict=True):
        milliseconds = part.of(rows)
        for name in (f"kind {layer.operator.kind}", f"single {layer.operator.key}"):
            found[name] = found.get(name, np.zeros(len(rows))) + milliseconds
    for family in FAMILIES:
        slope, offset = tables.work.numbers(family)
        if slope.any() or offset:
            found[f"rest {family}"] = _RATES[family] * (rows @ slope + offset).astype(np.float64)
    overhead = _OVERHEAD * (1 + len(tables.work.moved) + len(tables.work.layers))
    found["constant"] = np.full(len(rows), overhead)
    firm = {"kind": _KIND, "single": _SINGLE, "rest": _REST, "constant": _CONSTANT}
    return np.stack(list(found.values()), 1), [(n, firm[n.partition(" ")[0]]) for n in found]


def _fit(columns: FloatArray, times: FloatArray, kinds: Sequence[tuple[str, float]]) -> FloatArray:
    """The weights (W,) that explain the times best, near to their first guesses."""
    guess = np.array([float(name.startswith(("kind", "rest"))) for name, _ in kinds])
    firm = np.sqrt(np.array([f for _, f in kinds]))
    # Every budget is a share of the greatest time, the dense network's.
    trust = np.where(times == times.max(), _DENSE, 1.0)
    matrix = np.concatenate([columns * (trust / times)[:, None], np.diag(firm)])
    wanted_values = np.concatenate([trust, firm * guess])
    weights: FloatArray = np.linalg.lstsq(matrix, wanted_values, rcond=None)[0]
    # A rate below nothing would make wider networks faster.
    rest = np.array([name.startswith("rest") for name, _ in kinds])
    return np.where(rest, np.maximum(weights, 0.0), weights)


def _weighted(
    tables: _Tables, weights: FloatArray, kinds: Sequence[tuple[str, float]], space: Space
) -> LatencyCost:
    by_name = {name: float(w) for (name, _), w in zip(kinds, weights, strict=True)}
    parts = []
    for layer, part in zip(tables.work.layers, tables.parts, strict=True):
        operator = layer.operator
        weight = by_name[f"kind {operator.kind}"] + by_name[f"single {operator.key}"]
        parts.append(replace(part, table=max(weight, 0.0) * part.table))
    slope, offset = np.zeros(len(space)), 0.0
    for family in FAMILIES:
        numbers, fixed = tables.work.numbers(family)
        rate = by_name.get(f"rest {family}", 0.0) * _RATES[family]
        slope += rate * numbers
        offset += rate * fixed
    overhead = _OVERHEAD * (1 + len(tables.work.moved) + len(tables.work.layers))
    offset += by_name["constant"] * overhead
    nothing = np.empty(0)
    return LatencyCost(
        setting=Setting(""),
        version="",
        step=1,
        parts=tuple(parts),
        slope=slope,
        offset=float(offset),
        full=space.widths,
        checked=np.empty((0, len(space)), dtype=np.int64),
        measured_ms=nothing,
        foretold_ms=nothing,
    )
