"""What a configuration costs, in closed form.

Every convolution or matrix product costs ``a * |in| * |out|`` multiply-adds with both sides affine
in the widths, so that a network's cost is ``w'Qw + l'w + c``, exactly, and a million configurations
are costed without touching the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from randprune.errors import InvalidInputError, quoted

__all__ = ["Budget", "Cost", "FloatArray", "QuadraticCost"]

FloatArray = npt.NDArray[np.float64]

LATENCY = "latency"
"""The metric that is measured, in a runtime."""
DEFAULT_RUNTIME = "onnxruntime"

# Rows are costed in blocks of about this many bytes, so that a block and its product with the
# quadratic part stay in a core's L2 cache: three times faster than one pass over a large batch.
_BLOCK_BYTES = 1 << 19

# Products above this many multiply-adds are spread over threads by OpenBLAS. Threads that wait for
# each other cost more than they gain here: on a busy machine, fifty times the run time.
_SERIAL_PRODUCT = 1 << 18


@runtime_checkable
class Cost(Protocol):
    """A number for every configuration: lower is cheaper.

    `dense` is the cost at full width. Implementations are pure and vectorised over leading axes.
    """

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def dense(self) -> float: ...

    def __call__(self, widths: npt.ArrayLike) -> FloatArray:
        """Cost of each configuration: integer (..., G) -> float64 (...)."""
        ...


@runtime_checkable
class StructuredCost(Cost, Protocol):
    """A cost that knows what one group alone changes, which searches ask for all the time.

    Any other cost is evaluated afresh for each change.
    """

    def profile(self, widths: npt.ArrayLike, group: int, levels: npt.ArrayLike) -> FloatArray:
        """Cost (N, L) of `widths` (N, G) with one group at each of `levels` (L,).

        Up to a constant that may differ from row to row.
        """
        ...

    def moved(self, widths: npt.ArrayLike, steps: npt.ArrayLike) -> FloatArray:
        """Cost after moving one group alone, for each group: (..., G), (..., G) -> (..., G)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class QuadraticCost:
    """``w'Qw + l'w + c``: `quadratic` is symmetric float64 (G, G), `full` the dense widths (G,).

    Coefficients of real networks are integers or halves, and the cost stays far below 2**53, so
    that float64 evaluates the polynomial without any rounding: equal to integer arithmetic, on
    every machine and whatever the order of summation.

    Raises:
        InvalidInputError: the shapes disagree, `quadratic` is not symmetric, or a coefficient is
            not finite.
    """

    name: str
    unit: str
    quadratic: FloatArray
    linear: FloatArray
    constant: float
    full: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        groups = self.full.size
        if self.quadratic.shape != (groups, groups) or self.linear.shape != (groups,):
            raise InvalidInputError(
                f"Cost {self.name!r} of {groups} groups needs a quadratic part of shape "
                f"({groups}, {groups}) and a linear part of shape ({groups},). "
                f"Got {self.quadratic.shape} and {self.linear.shape} instead."
            )
        coefficients = (self.quadratic, self.linear, np.float64(self.constant))
        if not all(np.isfinite(part).all() for part in coefficients):
            raise InvalidInputError(f"Cost {self.name!r} has coefficients that are not finite.")
        if not np.array_equal(self.quadratic, self.quadratic.T):
            raise InvalidInputError(
                f"The quadratic part of cost {self.name!r} must be symmetric: put half of each "
                "product on either side of the diagonal."
            )

    @property
    def dense(self) -> float:
        """Cost at full width."""
        return float(self(self.full))

    def __call__(self, widths: npt.ArrayLike) -> FloatArray:
        """Cost of each configuration: integer (..., G) -> float64 (...)."""
        w = np.asarray(widths)
        groups = self.linear.size
        if w.shape[-1:] != (groups,):
            raise InvalidInputError(
                f"Widths must end in an axis of {groups} groups. Got shape {w.shape}."
            )
        leading = w.shape[:-1]
        rows = math.prod(leading)
        flat = w.reshape(rows, groups)
        cost = np.empty(rows)
        block = max(16, _BLOCK_BYTES // (8 * max(groups, 1)))
        for start in range(0, rows, block):
            part = flat[start : start + block].astype(np.float64, copy=False)
            mixed = self._mixed(part)
            mixed += self.linear
            np.einsum("ng,ng->n", mixed, part, out=cost[start : start + block])
        cost += self.constant
        return cost.reshape(leading)

    def gradient(self, widths: npt.ArrayLike) -> FloatArray:
        """d cost / d width: (..., G) -> (..., G)."""
        w = np.asarray(widths, dtype=np.float64)
        mixed = self._mixed(w.reshape(math.prod(w.shape[:-1]), self.linear.size))
        return 2.0 * mixed.reshape(w.shape) + self.linear

    def profile(self, widths: npt.ArrayLike, group: int, levels: npt.ArrayLike) -> FloatArray:
        """Cost (N, L) of `widths` (N, G) with one group at each of `levels` (L,).

        Up to a constant that may differ from row to row.
        """
        w, at = np.asarray(widths, dtype=np.float64), np.asarray(levels, dtype=np.float64)
        square = self.quadratic[group, group]
        slope = 2.0 * (w @ self.quadratic[:, group] - square * w[:, group])
        slope += self.linear[group]
        found: FloatArray = slope[:, None] * at
        if square:
            found += square * at**2
        return found

    def moved(self, widths: npt.ArrayLike, steps: npt.ArrayLike) -> FloatArray:
        """Cost after moving one group alone, for each group: (..., G), (..., G) -> (..., G).

        Entry g is the cost of `widths` with ``steps[..., g]`` added to group g and nothing else.
        """
        delta = np.asarray(steps, dtype=np.float64)
        change = (self.gradient(widths) + np.diagonal(self.quadratic) * delta) * delta
        return np.asarray(self(widths)[..., None] + change)

    def _mixed(self, rows: FloatArray) -> FloatArray:
        """`rows` @ `quadratic`, (N, G) -> (N, G), as a stack of products too small for threads."""
        groups = self.linear.size
        height = max(4, _SERIAL_PRODUCT // max(1, groups * groups))
        count = len(rows) // height
        body = count * height
        stack = (count, height, groups)
        mixed = np.empty((len(rows), groups))
        np.matmul(rows[:body].reshape(stack), self.quadratic, out=mixed[:body].reshape(stack))
        np.matmul(rows[body:], self.quadratic, out=mixed[body:])
        return mixed

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; only the non-zero upper triangle of `quadratic` is written."""
        rows, cols = np.nonzero(np.triu(self.quadratic))
        return {
            "name": self.name,
            "unit": self.unit,
            "quadratic": [
                [int(i), int(j), float(self.quadratic[i, j])]
                for i, j in zip(rows, cols, strict=True)
            ],
            "linear": self.linear.tolist(),
            "constant": self.constant,
            "full": self.full.tolist(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> QuadraticCost:
        """The cost that `to_json` wrote, equal to the last bit."""
        linear = np.array(document["linear"], dtype=np.float64)
        quadratic = np.zeros((linear.size, linear.size))
        for i, j, value in document["quadratic"]:
            quadratic[i, j] = quadratic[j, i] = value
        return cls(
            document["name"],
            document["unit"],
            quadratic,
            linear,
            float(document["constant"]),
            np.array(document["full"], dtype=np.int64),
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """What a configuration may cost: `ratio` of the dense `metric` that *remains*, ± `tolerance`.

    ``Budget("macs", 0.5)`` keeps half of the multiply-adds: a configuration fits when
    ``|cost / dense - ratio| <= tolerance`` (tolerance is a share of the dense cost, default 0.005).
    Of the metric "latency", `runtime`, `threads` and `batch` say what is measured.

    Raises:
        InvalidInputError: a parameter of another type, or outside of its range.

    Examples:
        >>> Budget("macs", 0.5)
        Budget(metric='macs', ratio=0.5, tolerance=0.005)
        >>> Budget("params", 0.3, tolerance=0.01).ratio
        0.3
        >>> Budget("latency", 0.5, runtime="torch", threads=2).runs_in
        'torch'
    """

    metric: str
    ratio: float
    tolerance: float = 0.005
    runtime: str = ""
    threads: int = 1
    batch: int = 1

    def __repr__(self) -> str:
        names = ["metric", "ratio", "tolerance"]
        names += ["runtime", "threads", "batch"] if self.metric == LATENCY else []
        return f"Budget({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str):
            raise InvalidInputError(
                "The 'metric' parameter of Budget must be the name of a cost, such as 'macs'. "
                f"Got {quoted(self.metric)} instead."
            )
        for name, value in (("ratio", self.ratio), ("tolerance", self.tolerance)):
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise InvalidInputError(
                    f"The {name!r} parameter of Budget must be a number. "
                    f"Got {quoted(value)} instead."
                )
        if not 0.0 < self.ratio <= 1.0:
            raise InvalidInputError(
                "The 'ratio' parameter of Budget must be the share that remains, in (0, 1]. "
                f"Got {quoted(self.ratio)} instead."
            )
        if not 0.0 < self.tolerance < 1.0:
            raise InvalidInputError(
                f"The 'tolerance' parameter of Budget must be in (0, 1). "
                f"Got {quoted(self.tolerance)}."
            )

        for name in ("threads", "batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(
                    f"The {name!r} parameter of Budget must be an integer of at least 1. "
                    f"Got {quoted(value)} instead."
                )
        if (self.runtime, self.threads, self.batch) != ("", 1, 1) and self.metric != LATENCY:
            raise InvalidInputError(
                "The 'runtime', 'threads' and 'batch' parameters of Budget go with the metric "
                f"'latency'. Got the metric {self.metric!r}."
            )

    @property
    def runs_in(self) -> str:
        """The runtime of a latency."""
        return self.runtime or DEFAULT_RUNTIME

    def fits(self, cost: Cost, widths: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which configurations are within the budget: (..., G) -> bool (...)."""
        return np.asarray(np.abs(cost(widths) / cost.dense - self.ratio) <= self.tolerance)
