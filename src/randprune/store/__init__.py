"""Durable records of every run: SQLite, one file an output folder, safe against `kill -9`.

with Store.open("out") as store:
    run = store.run(RunKey("prune", recipe, seed=0))
    with run:                                    # finished, interrupted or failed at its end
        for i, widths in enumerate(configurations):
            if run.candidate(i) is None:         # a resumed job skips what is there
                run.record_candidate(Candidate(i, widths, scores={"search_top1": ...}))
        run.write(Winner(index=best))
"""

from randprune.store.codec import content_hash
from randprune.store.database import RunKey, Store
from randprune.store.rows import (
    DENSE,
    FINALIST_TOP1,
    LEARNING_RATE,
    PROXY,
    RANDOM,
    RANDOM_CHANNELS,
    SEARCH_TOP1,
    SECONDS,
    TRAIN_LOSS,
    TRAIN_TOP1,
    UNIFORM,
    Accuracy,
    ArtifactInfo,
    BudgetInfo,
    Candidate,
    CandidateStatus,
    CostEntry,
    EpochRow,
    FrozenInfo,
    GroupInfo,
    Latency,
    Milestone,
    ModelInfo,
    NetworkRow,
    Notes,
    Reproduce,
    RunInfo,
    RunKind,
    RunStatus,
    SearchInfo,
    Session,
    SpaceInfo,
    Stage,
    UseOfTestSet,
    Verification,
    Winner,
)
from randprune.store.run import Run

__all__ = [
    "DENSE",
    "FINALIST_TOP1",
    "LEARNING_RATE",
    "PROXY",
    "RANDOM",
    "RANDOM_CHANNELS",
    "SEARCH_TOP1",
    "SECONDS",
    "TRAIN_LOSS",
    "TRAIN_TOP1",
    "UNIFORM",
    "Accuracy",
    "ArtifactInfo",
    "BudgetInfo",
    "Candidate",
    "CandidateStatus",
    "CostEntry",
    "EpochRow",
    "FrozenInfo",
    "GroupInfo",
    "Latency",
    "Milestone",
    "ModelInfo",
    "NetworkRow",
    "Notes",
    "Reproduce",
    "Run",
    "RunInfo",
    "RunKey",
    "RunKind",
    "RunStatus",
    "SearchInfo",
    "Session",
    "SpaceInfo",
    "Stage",
    "Store",
    "UseOfTestSet",
    "Verification",
    "Winner",
    "content_hash",
]
