"""Speed-ups from repeated timings."""

from __future__ import annotations

import numpy as np
import pytest

from randprune.store import Latency
from randprune.store.speedup import quartiles, speedup


def test_interleaved_timings_are_compared_one_by_one() -> None:
    # A machine that turned slow half-way: pairs see through it, medians would not.
    slow = np.array([1, 1, 1, 10, 10, 10])
    dense = Latency(tuple(0.2 * slow), 64, interleaved=True)
    small = Latency(tuple(0.1 * slow), 64, interleaved=True)
    found = speedup(dense, small)
    assert found is not None
    assert (found.median, found.low, found.high) == pytest.approx((2, 2, 2))
    assert found.paired


def test_other_timings_are_compared_by_quartiles_widely() -> None:
    dense, small = Latency((2.0, 3.0, 4.0), 64), Latency((1.0, 1.5, 2.0), 64)
    found = speedup(dense, small)
    assert found is not None
    assert not found.paired
    assert found.median == 2.0
    assert (found.low, found.high) == (2.5 / 1.75, 3.5 / 1.25)
    assert quartiles(small) == (1.25, 1.5, 1.75)


@pytest.mark.parametrize(
    "other",
    [
        Latency((1.0,), 1),
        Latency((1.0,), 64, device="cuda"),
        Latency((1.0,), 64, dtype="bfloat16"),
        Latency((1.0,), 64, threads=2),
        Latency((), 64),
    ],
)
def test_timings_of_different_settings_are_not_compared(other: Latency) -> None:
    assert speedup(Latency((1.0,), 64), other) is None
