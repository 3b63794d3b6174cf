"""Times of one operator over its two widths, with the hardware's steps in them.

Widths fall into classes by what divides them: multiples of 16, of 8, of 4, and others, which
vector units and memory layouts treat unlike each other. A width that is not a multiple of 16 is
first rounded up to one. Over those, times are interpolated linearly in both widths between measured
ones; for every pair of classes the ratio to that is measured and interpolated likewise. Which
classes are measured follows from the step of the widths that will be asked for.

Known shortcomings. Between two measured widths of a class a kernel may still change its method.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from randprune.atomic import write_file
from randprune.cost import FloatArray
from randprune.latency.operators import Call, Operator
from randprune.provenance import provenance
from randprune.space import IntArray

FOLDER_VARIABLE = "RANDPRUNE_LATENCY"
"""Names the environment variable with the folder where measured times are kept."""

_FORMAT = 1
_ALIGNED = 16
# What divides the widths of each class; the last class takes the rest.
_DIVISORS = (16, 8, 4, 1)
_BASE_KNOTS, _RATIO_KNOTS = 7, 3

Measure = Callable[[Sequence[Call]], FloatArray]


def classes_of(widths: IntArray) -> IntArray:
    """The class of each width: 0 for multiples of 16, 1 of 8, 2 of 4, 3 for others."""
    found = np.full(np.shape(widths), 3, dtype=np.int64)
    for number in (2, 1, 0):
        found[np.asarray(widths) % _DIVISORS[number] == 0] = number
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """The widths that one side of an operator can have, ascending, int64 (L,)."""

    widths: IntArray

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes that occur, ascending."""
        return tuple(np.unique(classes_of(self.widths)).tolist())

    def aligned_knots(self) -> IntArray:
        """Multiples of 16 between which times are interpolated."""
        up = np.unique(-(-self.widths // _ALIGNED) * _ALIGNED)
        return _spread(up, _BASE_KNOTS)

    def knots(self, number: int) -> IntArray:
        """Widths of one class between which ratios are interpolated."""
        return _spread(self.widths[classes_of(self.widths) == number], _RATIO_KNOTS)


def _spread(values: IntArray, count: int) -> IntArray:
    """At most `count` of the values, both ends among them; closer together where they are small."""
    if len(values) <= count:
        return values
    places = np.linspace(0.0, 1.0, count) ** 1.5 * (len(values) - 1)
    return values[np.unique(places.round().astype(np.int64))]


def surface(operator: Operator, inputs: Axis, outputs: Axis, times: Times) -> FloatArray:
    """Milliseconds at all pairs of widths, float64 (len(inputs), len(outputs)).

    A depthwise operator has one width: its outputs have length 1, and are not looked at.

    Args:
        operator: what is timed.
        inputs, outputs: the widths.
        times: gives what is measured, and measures the rest.
    """
    if operator.kind == "depthwise":
        outputs = Axis(np.zeros(1, dtype=np.int64))
    columns = outputs.aligned_knots(), [outputs.knots(c) for c in outputs.classes]
    rows = inputs.aligned_knots(), [inputs.knots(c) for c in inputs.classes]
    base = _grid(operator, rows[0], columns[0], times)
    up_in, up_out = (-(-a.widths // _ALIGNED) * _ALIGNED for a in (inputs, outputs))
    found = _bilinear(rows[0], columns[0], base, up_in, up_out)
    in_class, out_class = classes_of(inputs.widths), classes_of(outputs.widths)
    for a, some_in in zip(inputs.classes, rows[1], strict=True):
        for b, some_out in zip(outputs.classes, columns[1], strict=True):
            if a == b == 0:
                continue
            measured = _grid(operator, some_in, some_out, times)
            aligned = _bilinear(
                rows[0], columns[0], base,
                -(-some_in // _ALIGNED) * _ALIGNED, -(-some_out // _ALIGNED) * _ALIGNED,
            )  # fmt: skip
            ratio = measured / np.maximum(aligned, 1e-9)
            place = np.ix_(in_class == a, out_class == b)
            here = inputs.widths[in_class == a], outputs.widths[out_class == b]
            found[place] *= _bilinear(some_in, some_out, ratio, *here)
    return found


def _grid(operator: Operator, rows: IntArray, columns: IntArray, times: Times) -> FloatArray:
    depthwise = operator.kind == "depthwise"
    groups = 1 if depthwise else operator.lie.groups
    calls = [
        Call(operator, i, i) if depthwise else Call(operator, _fit(i, groups), _fit(o, groups))
        for i in rows.tolist()
        for o in columns.tolist()
    ]
    return times.of(calls).reshape(len(rows), len(columns))


def _fit(width: int, groups: int) -> int:
    """The width as a number of channels that so many groups can share."""
    return max(groups, width // groups * groups)


def _bilinear(
    x: IntArray, y: IntArray, values: FloatArray, at_x: IntArray, at_y: IntArray
) -> FloatArray:
    """`values` (len(x), len(y)) interpolated at all pairs, (len(at_x), len(at_y))."""
    along = np.stack([np.interp(at_x, x, column) for column in values.T], axis=1)
    return np.stack([np.interp(at_y, y, row) for row in along])


class Times:
    """Measured milliseconds of layers, kept on the disk: a file for each operator.

    Any number of processes may use a folder at once: files are replaced whole, and what two of them
    measure at the same time is kept from one. A file that cannot be read counts as missing.

    Args:
        folder: where they are kept, of this machine, runtime and number of threads; None: nowhere.
        measure: times what is not known.
    """

    def __init__(self, folder: Path | None, measure: Measure) -> None:
        self._folder, self._measure = folder, measure
        self._known: dict[str, dict[str, float]] = {}
        self.measured = 0

    def prepare(self, calls: Sequence[Call]) -> None:
        """Measure together all that is not known, and keep it."""
        missing = [
            call for call in dict.fromkeys(calls) if _name(call) not in self._entries(call.operator)
        ]
        if not missing:
            return
        found = self._measure(missing)
        self.measured += len(missing)
        changed: dict[str, Operator] = {}
        for call, milliseconds in zip(missing, found.tolist(), strict=True):
            self._known[call.operator.key][_name(call)] = milliseconds
            changed[call.operator.key] = call.operator
        for operator in changed.values():
            self._keep(operator)

    def of(self, calls: Sequence[Call]) -> FloatArray:
        """Milliseconds of each layer, (N,)."""
        self.prepare(calls)
        return np.array([self._known[call.operator.key][_name(call)] for call in calls])

    def _entries(self, operator: Operator) -> dict[str, float]:
        key = operator.key
        if key not in self._known:
            self._known[key] = self._read(operator)
        return self._known[key]

    def _read(self, operator: Operator) -> dict[str, float]:
        document = read_kept(self._file(operator))
        if document.get("operator") != operator.key:
            return {}
        entries = document.get("milliseconds", {})
        return {str(k): float(v) for k, v in entries.items() if math.isfinite(float(v))}

    def _keep(self, operator: Operator) -> None:
        file = self._file(operator)
        if file is None:
            return
        entries = {**self._read(operator), **self._known[operator.key]}
        keep(file, {"operator": operator.key, "milliseconds": dict(sorted(entries.items()))})

    def _file(self, operator: Operator) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / f"operator-{_hash(operator.key)}.json"


def wanted(operator: Operator, inputs: Axis, outputs: Axis) -> list[Call]:
    """All layers whose times `surface` asks for, so that many surfaces are measured together."""
    asked: list[Call] = []

    class Asked(Times):
        def of(self, calls: Sequence[Call]) -> FloatArray:
            asked.extend(calls)
            return np.ones(len(calls))

    surface(operator, inputs, outputs, Asked(None, lambda calls: np.ones(len(calls))))
    return asked


def kept_in(folder: str | os.PathLike[str] | None, runtime: str, threads: int) -> Path:
    """Where times of this machine, runtime (with its version) and number of threads are kept.

    Args:
        folder: of all of them; default: the variable RANDPRUNE_LATENCY, or the user's cache.
        runtime: name and version.
        threads: of the CPU.
    """
    home = folder or os.environ.get(FOLDER_VARIABLE)
    if home is None:
        cache = os.environ.get("XDG_CACHE_HOME")
        home = Path(cache) if cache else Path.home() / ".cache"
        home = home / "randprune" / "latency"
    name = re.sub(r"[^\w.-]+", "-", f"{runtime}-threads{threads}")
    return Path(home) / machine() / name


def machine() -> str:
    """This machine's processor, as a folder's name: equal where times can be shared."""
    cpu = dict(provenance()["cpu"] or {})
    cpu.pop("threads", None)
    model = re.sub(r"[^\w.-]+", "-", str(cpu.get("model") or "cpu")).strip("-")[:40]
    return f"{model}-{_hash(json.dumps(cpu, sort_keys=True))}"


def keep(file: Path, document: Mapping[str, Any]) -> None:
    """Write a document with this version's format, whole or not at all."""
    text = json.dumps({"format": _FORMAT, **document}, indent=0)
    write_file(file, text.encode())


def read_kept(file: Path | None) -> dict[str, Any]:
    """What `keep` wrote; empty where there is nothing that this version can read."""
    if file is None:
        return {}
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    sound = isinstance(document, dict) and document.get("format") == _FORMAT
    return document if sound else {}


def _name(call: Call) -> str:
    return f"{call.inputs},{call.outputs}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
