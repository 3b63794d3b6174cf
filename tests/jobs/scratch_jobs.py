"""A job from scratch that takes seconds, also as a process that kills itself on the way.

python scratch_jobs.py FOLDER PHASE DONE    SIGKILL once DONE steps of PHASE are complete
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from pruning_jobs import Tiny, Watch, digits

from randprune.jobs import PruneResult, prune_from_scratch

CANDIDATES = 5
TRAINING = {"epochs": 2, "lr": 0.1, "batch_size": 64, "precision": "float32"}
SETTINGS: dict[str, Any] = {
    "search": {"precision": "float32", "batch_size": 100},
    "output": {"latency_seconds": 0.0},
    "supernet": {"pool": 64},
}


def network() -> Tiny:
    """An untrained network, the same in every process."""
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Tiny()


def job(out: str | Path | None, progress: Watch | None = None, **changes: Any) -> PruneResult:
    """The job of these tests; `changes` are other parameters of `prune_from_scratch`."""
    parameters: dict[str, Any] = {
        "model": network(),
        "data": digits(),
        "candidates": CANDIDATES,
        "supernet": TRAINING,
        "training": TRAINING,
        "seeds": 2,
        "standalone": 1,
        "settings": SETTINGS,
        **changes,
    }
    budget = parameters.pop("budget", None)
    if budget is None:
        from randprune.cost import Budget

        budget = Budget("macs", 0.5, 0.03)
    return prune_from_scratch(out=out, progress=progress, budget=budget, **parameters)


if __name__ == "__main__":
    folder, phase, done = sys.argv[1:]
    job(folder, Watch(phase, int(done)))
    sys.exit("the job was not killed")
