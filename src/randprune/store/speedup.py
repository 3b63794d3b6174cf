"""How much faster one network is than another, from repeated timings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from randprune.store.rows import Latency


@dataclass(frozen=True, slots=True)
class Speedup:
    """How many times faster than the dense network; `low`..`high` is the middle half.

    `paired`: taken repetition by repetition, from interleaved timings.
    """

    median: float
    low: float
    high: float
    paired: bool

    @property
    def clear(self) -> bool:
        """Whether the middle half lies on one side of 1: the network is faster, or it is slower."""
        return self.low > 1 or self.high < 1


def speedup(dense: Latency, other: Latency) -> Speedup | None:
    """Ratio of the dense network's seconds to the other's; None for different settings.

    Without interleaved repetitions the range divides opposite quartiles, which is wide on purpose:
    two timings of different moments also differ by what else the machine did.
    """
    if dense.setting != other.setting or not dense.seconds or not other.seconds:
        return None
    a, b = np.asarray(dense.seconds), np.asarray(other.seconds)
    if dense.interleaved and other.interleaved and a.size == b.size:
        low, median, high = np.quantile(a / b, [0.25, 0.5, 0.75])
        return Speedup(float(median), float(low), float(high), True)
    (a_low, a_mid, a_high), (b_low, b_mid, b_high) = quartiles(dense), quartiles(other)
    return Speedup(a_mid / b_mid, a_low / b_high, a_high / b_low, False)


def quartiles(latency: Latency) -> tuple[float, float, float]:
    """25 %, 50 % and 75 % quantile of the seconds."""
    low, median, high = np.quantile(np.asarray(latency.seconds), [0.25, 0.5, 0.75])
    return float(low), float(median), float(high)
