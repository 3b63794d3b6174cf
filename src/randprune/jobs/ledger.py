"""Entries of the ledger: what a step of a job cost."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from randprune.store import CostEntry

# A backward pass computes two products of the size of the forward pass's one.
BACKWARD_MACS = 2


def entry(
    phase: str,
    key: str,
    *,
    seconds: float,
    device: str | None = None,
    candidates: int = 0,
    forward: Mapping[float, int] | None = None,
    backward: Mapping[float, int] | None = None,
) -> CostEntry:
    """A ledger entry; `forward` and `backward` map MACs per image to numbers of images."""
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
