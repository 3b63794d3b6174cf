"""A number with its confidence interval, or with the reason why it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from randprune.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the interval that covers the true one with probability `confidence`.

    Attributes:
        value: the point estimate.
        low, high: the ends of the interval; both None where it is undefined, and `note` says why.
        count: independent observations behind it.
        confidence: nominal coverage of the interval.
        note: what a reader has to know; "" where there is nothing.
    """

    value: float
    low: float | None
    high: float | None
    count: int
    confidence: float = CONFIDENCE
    note: str = ""

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high), or None where the interval is undefined."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def mean_interval(
    values: Sequence[float] | FloatArray,
    confidence: float = CONFIDENCE,
    resolution: float = 0.0,
) -> Estimate:
    """The mean over independent repetitions, such as seeds, with Student's t interval.

    ``mean ± t(n - 1, (1 + confidence) / 2) · s / √n`` with the sample standard deviation s
    (Student, "The probable error of a mean", Biometrika 1908). It covers the chance in what was
    repeated and nothing else: with seeds, not the choice of the test images.

    A single value has no interval. Nor have values that are all equal, since their spread is then
    below what can be seen, not zero; with a `resolution` r (1 / images for accuracies on a fixed
    test set) the standard deviation counts as at least that of rounding, r / √12.

    Args:
        values: finite, (n,).
        confidence: in (0, 1).
        resolution: smallest step between two values; 0 where they are not rounded.

    Raises:
        InvalidInputError: no values, values that are not finite, or a confidence outside (0, 1).
    """
    x = finite(values, "values", "mean_interval")
    check_confidence(confidence, "mean_interval")
    mean = float(x.mean())
    if x.size == 1:
        return Estimate(mean, None, None, 1, confidence, "one value: no interval")
    error = standard_error(x, resolution)
    if error == 0:
        note = f"all {x.size} values are equal: their spread is unknown, no interval"
        return Estimate(mean, None, None, x.size, confidence, note)
    half = float(stdtrit(x.size - 1, 0.5 + confidence / 2)) * error
    note = "two values: the interval is wide, as little is known" if x.size == 2 else ""
    return Estimate(mean, mean - half, mean + half, x.size, confidence, note)


def standard_error(x: FloatArray, resolution: float) -> float:
    """s / √n of (n,) values, n >= 2, with s at least the rounding error of the `resolution`."""
    # A spread of a few units in the last place is rounding of equal numbers, not spread.
    spread = float(x.std(ddof=1))
    if spread <= 1e-14 * max(1.0, float(np.abs(x).max())):
        spread = 0.0
    return float(max(spread, resolution / 12**0.5) / x.size**0.5)


def finite(values: Sequence[float] | FloatArray, parameter: str, function: str) -> FloatArray:
    """The values as a flat float64 array, checked.

    Raises:
        InvalidInputError: empty, more than one axis, or not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        got = (
            f"an array of shape {x.shape}"
            if x.ndim != 1 or x.size == 0
            else f"{int((~np.isfinite(x)).sum())} of {x.size} not finite"
        )
        raise InvalidInputError(
            f"The {parameter!r} parameter of {function} must be a sequence of at least one finite "
            f"number. Got {got} instead."
        )
    return x


def check_confidence(confidence: float, function: str) -> None:
    """Raise `InvalidInputError` unless the confidence lies in (0, 1)."""
    if not 0 < confidence < 1:
        raise InvalidInputError(
            f"The 'confidence' parameter of {function} must be between 0 and 1. "
            f"Got {confidence} instead."
        )
