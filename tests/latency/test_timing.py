"""Latency: interleaved, warm-up apart, intervals by order statistics."""

from __future__ import annotations

import gc
import math
import time
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from randprune.errors import InvalidInputError
from randprune.latency import Timing, measure_latency, median_interval, speedup
from randprune.latency.timing import interleaved


class Recorder(nn.Module):
    """Writes its name down at each call and takes a set time."""

    log: list[str]

    def __init__(self, name: str, log: list[str], milliseconds: float) -> None:
        super().__init__()
        self.name, self.seconds = name, milliseconds / 1000
        object.__setattr__(self, "log", log)
        self.weight = nn.Parameter(torch.zeros(1))

    def __deepcopy__(self, memo: dict[int, object]) -> Recorder:
        return Recorder(self.name, self.log, 1000 * self.seconds)

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        assert not gc.isenabled() or len(self.log) < 9
        self.log.append(self.name)
        time.sleep(self.seconds)
        return x


def recorders(times: dict[str, float]) -> tuple[dict[str, nn.Module], list[str]]:
    log: list[str] = []
    return {name: Recorder(name, log, ms) for name, ms in times.items()}, log


def test_networks_run_in_turn_and_warm_up_is_excluded() -> None:
    models, log = recorders({"a": 3, "b": 3, "c": 3})
    found = measure_latency(models, torch.zeros(2, 3), repeats=4, warmup=3)
    assert sorted(log[:9]) == sorted("abc" * 3)
    assert "".join(log[9:]) == "abccbaabccba"
    assert all(len(one.samples_ms) == 4 and one.warmup == 3 for one in found.values())
    assert all(one.first_ms >= 3 and one.median_ms >= 3 for one in found.values())
    assert gc.isenabled()


@dataclass
class Steady:
    """Takes a set time a batch, and notes how many batches it was asked for."""

    milliseconds: float
    asked: list[int] = field(default_factory=list)

    def clock(self, loops: int) -> float:
        self.asked.append(loops)
        return self.milliseconds

    def fastest(self, runs: int) -> float:
        return self.clock(runs)


def test_fast_networks_are_repeated_within_a_sample() -> None:
    runners = {"fast": Steady(0.3), "slow": Steady(5.0)}
    found = interleaved(runners, repeats=3, warmup=2)
    assert runners["fast"].asked == [1, 1, 7, 7, 7]
    assert runners["slow"].asked == [1, 1, 1, 1, 1]
    assert found["fast"].samples_ms == (0.3, 0.3, 0.3)


def test_speed_up_is_the_median_ratio_within_rounds() -> None:
    slow = Timing(4.0, 3, 9, (4.0, 9.0, 3.0), 8, "float32", "cpu", 1, 5, 9.0)
    fast = Timing(2.0, 1, 3, (2.0, 3.0, 1.0), 8, "float32", "cpu", 1, 5, 9.0)
    found = speedup(slow, fast)
    assert (found.ratio, found.low, found.high, found.rounds) == (3.0, 2.0, 3.0, 3)
    assert speedup(fast, slow).ratio == pytest.approx(1 / 3)
    assert fast.images_per_second == 4000
    other = Timing(2.0, 1, 3, (2.0, 3.0), 8, "float32", "cpu", 1, 5, 9.0)
    with pytest.raises(InvalidInputError, match="same call of measure_latency"):
        speedup(slow, other)


def test_a_wider_network_is_measured_slower() -> None:
    models = {
        "dense": nn.Conv2d(32, 64, 3),
        "small": nn.Conv2d(32, 4, 3),
    }
    before = [p.clone() for m in models.values() for p in m.parameters()]
    found = measure_latency(models, torch.randn(4, 32, 32, 32), repeats=15, threads=1)
    gain = speedup(found["dense"], found["small"])
    assert gain.ratio > 1.5
    assert gain.low <= gain.ratio <= gain.high
    dense = found["dense"]
    assert (dense.batch, dense.dtype, dense.device, dense.threads) == (4, "float32", "cpu", 1)
    assert dense.low_ms <= dense.median_ms <= dense.high_ms
    assert all(m.training for m in models.values())
    after = [p for m in models.values() for p in m.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_threads_are_restored_also_after_an_error() -> None:
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError):
        measure_latency({"bad": nn.Linear(3, 3)}, torch.zeros(1, 4), threads=threads + 1)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("n", [1, 5, 6, 9, 20, 50, 101])
def test_the_interval_covers_the_median_with_the_promised_probability(n: int) -> None:
    low, high = median_interval([float(i) for i in range(n)])
    k = int(low) + 1
    assert high == n - k
    missed = 2 * sum(math.comb(n, i) for i in range(k)) / 2**n
    if n < 6:
        assert k == 1
    else:
        assert missed <= 0.05
        assert missed + 2 * math.comb(n, k) / 2**n > 0.05  # the next narrower one would not do


def test_intervals_are_nested() -> None:
    samples = [float(i * 7 % 31) for i in range(31)]
    widths = []
    for confidence in (0.5, 0.8, 0.95, 0.99):
        low, high = median_interval(samples, confidence)
        widths.append(high - low)
        assert low <= 15 <= high
    assert all(a <= b for a, b in pairwise(widths))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"repeats": 0}, "'repeats' parameter of measure_latency"),
        ({"warmup": 0}, "'warmup' parameter"),
        ({"threads": 0}, "'threads' parameter"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        measure_latency({"a": nn.Identity()}, torch.zeros(1), **arguments)


def test_there_must_be_networks() -> None:
    with pytest.raises(InvalidInputError, match="no networks"):
        measure_latency({}, torch.zeros(1))
