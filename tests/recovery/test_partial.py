"""Statistics that are interrupted on the way go on and end with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from repairable import Chain, build, images, traced

from randprune.recovery import DenseStatistics, Moments, Partial
from randprune.recovery.collect import collect_moments
from randprune.recovery.sensitivity import measured_tables, measurements

KEY = {"network": "chain"}


def stopping(at: int, seen: list[int]) -> Callable[[int], None]:
    """Notes what it is told, and presses Ctrl-C once."""

    def tell(done: int) -> None:
        seen.append(done)
        if done >= at:
            raise KeyboardInterrupt

    return tell


def equal(first: Moments, second: Moments) -> bool:
    ours, theirs = first.sites, second.sites
    return (
        (first.images, first.layers, ours.keys()) == (second.images, second.layers, theirs.keys())
        and all(ours[name].rows == theirs[name].rows for name in ours)
        and all(torch.equal(ours[name].mean, theirs[name].mean) for name in ours)
        and all(torch.equal(ours[name].covariance, theirs[name].covariance) for name in ours)
    )


def test_an_interrupted_collection_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    network, file = build(Chain), tmp_path / "so-far"
    space, x = traced(network), images(50)
    whole = collect_moments(network, space, x.split(8), positions=8, seed=3)
    seen: list[int] = []
    for stop in (8, 24, 40):
        partial = Partial(file, KEY, every_seconds=0)
        with pytest.raises(KeyboardInterrupt):
            collect_moments(
                network, space, x.split(8), positions=8, seed=3, partial=partial,
                tell=stopping(stop, seen),
            )  # fmt: skip
    partial = Partial(file, KEY, every_seconds=0)
    assert partial.head["images"] == 40
    assert partial.seconds > 0
    again = collect_moments(
        network, space, x.split(8), positions=8, seed=3, partial=partial, tell=seen.append
    )
    assert seen == [8, 16, 24, 32, 40, 48, 50]  # each batch once
    assert equal(again, whole)
    partial.remove()
    assert list(tmp_path.iterdir()) == []


def test_interrupted_tables_go_on_to_the_same_bits(tmp_path: Path) -> None:
    network = build(Chain)
    space, x = traced(network), images(24)
    statistics = DenseStatistics(network, space)
    statistics.collect(x.split(8))

    def tables(partial: Partial | None, tell: Callable[[int], None]) -> list[np.ndarray]:
        found = statistics.inverses(), statistics.eliminations()
        return measured_tables(network, space, *found, x, partial=partial, tell=tell)

    whole = tables(None, lambda _: None)
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        tables(Partial(tmp_path / "so-far", KEY, every_seconds=0), stopping(3, seen))
    again = tables(Partial(tmp_path / "so-far", KEY, every_seconds=0), seen.append)
    assert seen == list(range(1, measurements(space) + 1))
    assert all(map(np.array_equal, again, whole))


def test_a_file_of_another_computation_or_a_damaged_one_counts_as_none(tmp_path: Path) -> None:
    file = tmp_path / "so-far"
    Partial(file, KEY, every_seconds=0).save(lambda: {"sum": torch.ones(3)}, images=8)
    assert Partial(file, KEY).head["images"] == 8
    assert Partial(file, KEY).read()["sum"].tolist() == [1.0, 1.0, 1.0]
    assert (Partial(file, {"network": "other"}).read(), Partial(file, KEY).seconds >= 0) == (
        {},
        True,
    )
    known, sound = Partial(file, KEY), file.read_bytes()
    file.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert Partial(file, KEY).head == {}
    file.write_bytes(sound[:-4])
    assert known.read() == {}
    assert known.head == {}
    assert Partial(file, KEY).read() == {}


def test_the_file_is_written_every_so_often_only(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "so-far", KEY, every_seconds=3600)
    partial.save(lambda: pytest.fail("too soon"), images=8)
    assert list(tmp_path.iterdir()) == []
