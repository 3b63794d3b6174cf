"""Latency as a cost: a table of measured times for every layer, and a rate for everything else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from randprune.cost import FloatArray
from randprune.errors import InvalidInputError
from randprune.latency.operators import Width
from randprune.space import IntArray

_BLOCK = 1 << 14
# What is extrapolated below the measured networks stays a time.
_LEAST_MS = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One layer's milliseconds over its widths.

    Attributes:
        name: of the layer.
        inputs, outputs: how its widths follow from a configuration.
        rows, columns: which row or column a number of channels has, int64 (channels + 1,).
        table: milliseconds, float64 (R, C).
    """

    name: str
    inputs: Width
    outputs: Width
    rows: IntArray
    columns: IntArray
    table: FloatArray

    def at(self, inputs: IntArray, outputs: IntArray) -> FloatArray:
        """Milliseconds with so many channels."""
        return np.asarray(self.table[self.rows[inputs], self.columns[outputs]])

    def of(self, widths: IntArray) -> FloatArray:
        """Milliseconds at widths (..., G)."""
        return self.at(_channels(self.inputs, widths), _channels(self.outputs, widths))


def _channels(width: Width, widths: IntArray) -> IntArray:
    """The same as `Width.of`, without a product where one group is all."""
    groups = width.groups
    found = np.full(widths.shape[:-1], width.offset, dtype=np.int64)
    for g in groups:
        found += width.slope[g] * widths[..., g]
    return found


@dataclass(frozen=True, slots=True)
class Setting:
    """How a network runs: runtime, threads of the CPU, images a batch."""

    runtime: str
    threads: int = 1
    batch: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class LatencyCost:
    """Milliseconds of one batch, predicted: neither smooth nor growing with every width.

    Attributes:
        setting: what was measured.
        version: of the runtime.
        step: widths that are multiples of it, or full, were measured; others count as the next
            greater one.
        parts: the layers, in the order in which they run.
        slope, offset: milliseconds of everything else, ``slope @ widths + offset``.
        full: the dense widths.
        checked: whole networks that were measured, int64 (M, G).
        measured_ms: their times, (M,).
        foretold_ms: what the cost says of each when it was corrected by the others alone, (M,).
        spread: how much more than its least time the dense network took in half of the
            measurements, as a share.
        notes: what a reader must know.
    """

    setting: Setting
    version: str
    step: int
    parts: tuple[Part, ...]
    slope: FloatArray
    offset: float
    full: IntArray
    checked: IntArray
    measured_ms: FloatArray
    foretold_ms: FloatArray
    spread: float = 0.0
    notes: tuple[str, ...] = ()
    name: str = "latency"
    unit: str = "ms"
    _at_full: list[float] = field(init=False, default_factory=list, repr=False)
    FORMAT: ClassVar[int] = 1

    @property
    def dense(self) -> float:
        """Predicted milliseconds at full width."""
        if not self._at_full:
            self._at_full.append(float(self(self.full)))
        return self._at_full[0]

    @property
    def errors(self) -> FloatArray:
        """Relative errors on networks that it was not corrected by, (M,)."""
        return np.asarray(np.abs(self.foretold_ms / self.measured_ms - 1.0))

    def __call__(self, widths: npt.ArrayLike) -> FloatArray:
        """Milliseconds of each configuration: integer (..., G) -> float64 (...)."""
        w = np.asarray(widths)
        if w.shape[-1:] != self.full.shape:
            raise InvalidInputError(
                f"Widths must end in an axis of {self.full.size} groups. Got shape {w.shape}."
            )
        leading = w.shape[:-1]
        flat = w.reshape(math.prod(leading), self.full.size)
        total = np.empty(len(flat))
        for start in range(0, len(flat), _BLOCK):
            # One group after the other is read: columns lie together in memory.
            block = np.asfortranarray(flat[start : start + _BLOCK].astype(np.int64, copy=False))
            found = block @ self.slope + self.offset
            for part in self.parts:
                found += part.of(block)
            total[start : start + _BLOCK] = np.maximum(found, _LEAST_MS)
        return total.reshape(leading)

    def profile(self, widths: npt.ArrayLike, group: int, levels: npt.ArrayLike) -> FloatArray:
        """Cost (N, L) of `widths` (N, G) with one group at each of `levels` (L,).

        Up to a constant that may differ from row to row.
        """
        w = np.asarray(widths).astype(np.int64)
        at = np.asarray(levels).astype(np.int64)
        found = np.broadcast_to(self.slope[group] * at, (len(w), len(at))).copy()
        change = at[None, :] - w[:, group : group + 1]
        for part in self._reading(group):
            inputs = _channels(part.inputs, w)[:, None] + part.inputs.slope[group] * change
            outputs = _channels(part.outputs, w)[:, None] + part.outputs.slope[group] * change
            found += part.at(inputs, outputs)
        return found

    def moved(self, widths: npt.ArrayLike, steps: npt.ArrayLike) -> FloatArray:
        """Cost after moving one group alone, for each group: (N, G), (N, G) -> (N, G)."""
        w, step = np.asarray(widths).astype(np.int64), np.asarray(steps).astype(np.int64)
        found = self(w)[:, None] + self.slope * step
        for group in range(self.full.size):
            for part in self._reading(group):
                inputs, outputs = _channels(part.inputs, w), _channels(part.outputs, w)
                by = step[:, group]
                found[:, group] += part.at(
                    inputs + part.inputs.slope[group] * by,
                    outputs + part.outputs.slope[group] * by,
                ) - part.at(inputs, outputs)
        return found

    def of_layers(self, widths: npt.ArrayLike) -> dict[str, float]:
        """Milliseconds of each layer, and of everything else, at a configuration (G,)."""
        w = np.asarray(widths, dtype=np.int64)
        found: dict[str, float] = {}
        for part in self.parts:
            found[part.name] = found.get(part.name, 0.0) + float(part.of(w))
        found["everything else"] = float(w @ self.slope + self.offset)
        return found

    def _reading(self, group: int) -> Iterator[Part]:
        for part in self.parts:
            if part.inputs.slope[group] or part.outputs.slope[group]:
                yield part

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_json` gives an equal cost back."""
        tables: dict[bytes, int] = {}
        shared: list[Any] = []
        parts = []
        for part in self.parts:
            key = part.table.tobytes() + part.rows.tobytes() + part.columns.tobytes()
            if key not in tables:
                tables[key] = len(shared)
                rows, columns = part.rows.tolist(), part.columns.tolist()
                shared.append([rows, columns, part.table.tolist()])
            widths = [_width_json(part.inputs), _width_json(part.outputs)]
            parts.append([part.name, *widths, tables[key]])
        return {
            "format": self.FORMAT,
            "runtime": self.setting.runtime,
            "threads": self.setting.threads,
            "batch": self.setting.batch,
            "version": self.version,
            "step": self.step,
            "tables": shared,
            "parts": parts,
            "slope": self.slope.tolist(),
            "offset": self.offset,
            "full": self.full.tolist(),
            "checked": self.checked.tolist(),
            "measured_ms": self.measured_ms.tolist(),
            "foretold_ms": self.foretold_ms.tolist(),
            "spread": self.spread,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LatencyCost:
        """The cost that `to_json` wrote, equal to the last bit."""
        full = np.array(document["full"], dtype=np.int64)
        tables = [
            (np.array(r, dtype=np.int64), np.array(c, dtype=np.int64), np.array(t))
            for r, c, t in document["tables"]
        ]
        return cls(
            setting=Setting(document["runtime"], document["threads"], document["batch"]),
            version=document["version"],
            step=document["step"],
            parts=tuple(
                Part(name, _width(i, full.size), _width(o, full.size), *tables[t])
                for name, i, o, t in document["parts"]
            ),
            slope=np.array(document["slope"], dtype=np.float64),
            offset=float(document["offset"]),
            full=full,
            checked=np.array(document["checked"], dtype=np.int64).reshape(-1, full.size),
            measured_ms=np.array(document["measured_ms"], dtype=np.float64),
            foretold_ms=np.array(document["foretold_ms"], dtype=np.float64),
            spread=float(document["spread"]),
            notes=tuple(document["notes"]),
        )


def _width_json(width: Width) -> list[Any]:
    return [[[g, int(width.slope[g])] for g in width.groups], width.offset]


def _width(document: Any, groups: int) -> Width:
    slope = np.zeros(groups, dtype=np.int64)
    for g, value in document[0]:
        slope[g] = value
    return Width(slope, int(document[1]))
