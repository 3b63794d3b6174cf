"""Several threads of one process at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from attacked import EXAMPLE, QUICK, images, network

import randprune as rp


def in_threads(calls: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """What each call returns or raises, all of them started together."""
    found: dict[str, Any] = {}
    start = threading.Barrier(len(calls))

    def run(name: str) -> None:
        torch.set_num_threads(1)  # a new thread begins with torch's own number
        start.wait()
        try:
            found[name] = calls[name]()
        except Exception as error:
            found[name] = error

    threads = [threading.Thread(target=run, args=(name,)) for name in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_traces_in_threads_are_those_of_one_thread() -> None:
    alone = {str(n): rp.trace(network(n), EXAMPLE).fingerprint for n in (8, 12, 16)}
    together = in_threads({n: lambda n=n: rp.trace(network(int(n)), EXAMPLE) for n in alone})  # type: ignore[misc]
    assert {n: getattr(space, "fingerprint", space) for n, space in together.items()} == alone


def test_two_threads_prune_two_networks_into_two_folders(tmp_path: Any) -> None:
    def job(channels: int) -> rp.PruneResult:
        return rp.prune(
            network(channels), images(), candidates=2, out=tmp_path / str(channels), settings=QUICK
        )

    found = in_threads({str(n): lambda n=n: job(n) for n in (8, 12)})  # type: ignore[misc]
    assert [type(result).__name__ for result in found.values()] == ["PruneResult"] * 2, found
    for name in found:
        assert rp.load(tmp_path / name / "pruned.safetensors", model=network(int(name)))
