"""Where a job writes what it finds and what that costs: a run's records, or memory.

A job in one process writes into its `randprune.store.Run`. A process that works for another one, as
in benchmarks, gathers what it found and hands it over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch

from randprune.store import Candidate, CostEntry, EpochRow

# A backward pass computes two products of the size of the forward pass's one.
BACKWARD_MACS = 2


class Ledger(Protocol):
    """Takes a job's candidates, epochs and costs. The same key again replaces what is there."""

    def candidates(self, method: str | None = None) -> tuple[Candidate, ...]:
        """The candidates recorded so far, of one method or all, by method and index."""
        ...

    def record_candidate(self, candidate: Candidate, ledger: Iterable[CostEntry] = ()) -> None:
        """Record a candidate, by method and index, with what it cost."""
        ...

    def record_epoch(self, network: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a finished epoch, counted from 1."""
        ...

    def add_cost(self, entry: CostEntry) -> None:
        """Record what a step cost, by the entry's key."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Several writes as one."""
        ...


@dataclass(slots=True, eq=False)
class Gathered:
    """A ledger in memory."""

    _candidates: dict[tuple[str, int], Candidate] = field(default_factory=dict)
    _epochs: dict[tuple[str, int], EpochRow] = field(default_factory=dict)
    _costs: dict[str, CostEntry] = field(default_factory=dict)

    def candidates(self, method: str | None = None) -> tuple[Candidate, ...]:
        """See `Ledger`."""
        found = (c for c in self._candidates.values() if method in (None, c.method))
        return tuple(sorted(found, key=lambda c: (c.method, c.index)))

    def record_candidate(self, candidate: Candidate, ledger: Iterable[CostEntry] = ()) -> None:
        """See `Ledger`."""
        self._candidates[candidate.method, candidate.index] = candidate
        for entry in ledger:
            self.add_cost(entry)

    def record_epoch(self, network: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """See `Ledger`."""
        self._epochs[network, epoch] = EpochRow(network, epoch, metrics)

    def add_cost(self, entry: CostEntry) -> None:
        """See `Ledger`."""
        self._costs[entry.key] = entry

    def transaction(self) -> AbstractContextManager[None]:
        """Nothing to wait for."""
        return nullcontext()

    @property
    def epochs(self) -> tuple[EpochRow, ...]:
        """The epochs recorded so far, in their order."""
        return tuple(self._epochs.values())

    @property
    def costs(self) -> tuple[CostEntry, ...]:
        """The costs recorded so far, in their order."""
        return tuple(self._costs.values())


def cost_entry(
    phase: str,
    key: str,
    *,
    seconds: float,
    device: str | None = None,
    candidates: int = 0,
    forward: Mapping[float, int] | None = None,
    backward: Mapping[float, int] | None = None,
) -> CostEntry:
    """What a step cost; `forward` and `backward` map MACs per image to numbers of images."""
    ahead, back = forward or {}, backward or {}
    macs = sum(per * n for per, n in ahead.items())
    macs += BACKWARD_MACS * sum(per * n for per, n in back.items())
    return CostEntry(
        phase=phase,
        key=key,
        candidates=candidates,
        images_forward=sum(ahead.values()),
        images_backward=sum(back.values()),
        macs_spent=macs,
        seconds=seconds,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
    )
