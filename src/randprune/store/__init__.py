"""Durable records of every run: SQLite, one file an output folder, safe against `kill -9`.

with Store.open("out") as store:
    run = store.run(RunKey("prune", recipe, seed=0))
    with run:                                    # finished, interrupted or failed at its end
        for i, widths in enumerate(configurations):
            if run.candidate(i) is None:         # a resumed job skips what is there
                run.record_candidate(Candidate(i, widths, scores={"search_top1": ...}))
        run.write(Winner(index=best))
"""

from randprune.store.codec import (
    content_hash as content_hash,
)
from randprune.store.curve import (
    CurvePoint as CurvePoint,
)
from randprune.store.curve import (
    curve_of as curve_of,
)
from randprune.store.database import (
    RunKey as RunKey,
)
from randprune.store.database import (
    Store as Store,
)
from randprune.store.rows import (
    DENSE as DENSE,
)
from randprune.store.rows import (
    FINALIST_TOP1 as FINALIST_TOP1,
)
from randprune.store.rows import (
    LEARNING_RATE as LEARNING_RATE,
)
from randprune.store.rows import (
    PRETRAINED as PRETRAINED,
)
from randprune.store.rows import (
    PROXY as PROXY,
)
from randprune.store.rows import (
    RANDOM_CHANNELS as RANDOM_CHANNELS,
)
from randprune.store.rows import (
    RANDOM_CONFIGURATION as RANDOM_CONFIGURATION,
)
from randprune.store.rows import (
    RANDOM_SEARCH as RANDOM_SEARCH,
)
from randprune.store.rows import (
    SEARCH_TOP1 as SEARCH_TOP1,
)
from randprune.store.rows import (
    SEARCHED as SEARCHED,
)
from randprune.store.rows import (
    SECONDS as SECONDS,
)
from randprune.store.rows import (
    STANDALONE as STANDALONE,
)
from randprune.store.rows import (
    TRAIN_LOSS as TRAIN_LOSS,
)
from randprune.store.rows import (
    TRAIN_TOP1 as TRAIN_TOP1,
)
from randprune.store.rows import (
    UNIFORM as UNIFORM,
)
from randprune.store.rows import (
    Accuracy as Accuracy,
)
from randprune.store.rows import (
    ArtifactInfo as ArtifactInfo,
)
from randprune.store.rows import (
    BudgetInfo as BudgetInfo,
)
from randprune.store.rows import (
    BudgetSeries as BudgetSeries,
)
from randprune.store.rows import (
    Candidate as Candidate,
)
from randprune.store.rows import (
    CandidateStatus as CandidateStatus,
)
from randprune.store.rows import (
    CostEntry as CostEntry,
)
from randprune.store.rows import (
    EpochRow as EpochRow,
)
from randprune.store.rows import (
    FrozenInfo as FrozenInfo,
)
from randprune.store.rows import (
    GroupInfo as GroupInfo,
)
from randprune.store.rows import (
    Item as Item,
)
from randprune.store.rows import (
    Latency as Latency,
)
from randprune.store.rows import (
    Milestone as Milestone,
)
from randprune.store.rows import (
    ModelInfo as ModelInfo,
)
from randprune.store.rows import (
    NetworkRow as NetworkRow,
)
from randprune.store.rows import (
    Notes as Notes,
)
from randprune.store.rows import (
    Reproduce as Reproduce,
)
from randprune.store.rows import (
    RunInfo as RunInfo,
)
from randprune.store.rows import (
    RunKind as RunKind,
)
from randprune.store.rows import (
    RunStatus as RunStatus,
)
from randprune.store.rows import (
    SearchInfo as SearchInfo,
)
from randprune.store.rows import (
    Session as Session,
)
from randprune.store.rows import (
    SharedWeightRanks as SharedWeightRanks,
)
from randprune.store.rows import (
    SpaceInfo as SpaceInfo,
)
from randprune.store.rows import (
    Stage as Stage,
)
from randprune.store.rows import (
    UseOfTestSet as UseOfTestSet,
)
from randprune.store.rows import (
    Verification as Verification,
)
from randprune.store.rows import (
    Winner as Winner,
)
from randprune.store.run import (
    Run as Run,
)
