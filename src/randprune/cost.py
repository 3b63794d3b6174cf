"""What a configuration costs, in closed form.

Every convolution or matrix product costs ``a * |in| * |out|`` multiply-adds with both sides affine
in the widths, so that a network's cost is ``w'Qw + l'w + c``, exactly, and a million configurations
are costed without touching the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from randprune.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]


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


@dataclass(frozen=True, slots=True, eq=False)
class QuadraticCost:
    """``w'Qw + l'w + c``; `quadratic` is symmetric float64 (G, G), `full` the dense widths (G,)."""

    name: str
    unit: str
    quadratic: FloatArray
    linear: FloatArray
    constant: float
    full: npt.NDArray[np.int64]

    @property
    def dense(self) -> float:
        """Cost at full width."""
        return float(self(self.full))

    def __call__(self, widths: npt.ArrayLike) -> FloatArray:
        """Cost of each configuration: integer (..., G) -> float64 (...)."""
        w = np.asarray(widths, dtype=np.float64)
        if w.shape[-1:] != self.linear.shape:
            raise InvalidInputError(
                f"Widths must end in an axis of {self.linear.size} groups. Got shape {w.shape}."
            )
        mixed = w @ self.quadratic
        mixed += self.linear
        return np.asarray(np.einsum("...g,...g->...", mixed, w) + self.constant)

    def gradient(self, widths: npt.ArrayLike) -> FloatArray:
        """d cost / d width: (..., G) -> (..., G)."""
        w = np.asarray(widths, dtype=np.float64)
        return np.asarray(2.0 * (w @ self.quadratic) + self.linear)

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
    """

    metric: str
    ratio: float
    tolerance: float = 0.005

    def __post_init__(self) -> None:
        if not 0.0 < self.ratio <= 1.0:
            raise InvalidInputError(
                "The 'ratio' parameter of Budget must be the share that remains, in (0, 1]. "
                f"Got {self.ratio!r} instead."
            )
        if not 0.0 < self.tolerance < 1.0:
            raise InvalidInputError(
                f"The 'tolerance' parameter of Budget must be in (0, 1). Got {self.tolerance!r}."
            )

    def fits(self, cost: Cost, widths: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which configurations are within the budget: (..., G) -> bool (...)."""
        return np.asarray(np.abs(cost(widths) / cost.dense - self.ratio) <= self.tolerance)
