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
    curve_of as curve_of,
    run_of_budget as run_of_budget,
)
from randprune.store.database import (
    RunKey as RunKey,
    Store as Store,
)
from randprune.store.rows import (
    DENSE as DENSE,
    FINALIST_TOP1 as FINALIST_TOP1,
    FIRST_LOOK as FIRST_LOOK,
    LAST_LOOK as LAST_LOOK,
    LEARNING_RATE as LEARNING_RATE,
    PRETRAINED as PRETRAINED,
    PROXY as PROXY,
    RANDOM_CHANNELS as RANDOM_CHANNELS,
    RANDOM_CONFIGURATION as RANDOM_CONFIGURATION,
    RANDOM_SEARCH as RANDOM_SEARCH,
    SEARCH_TOP1 as SEARCH_TOP1,
    SEARCHED as SEARCHED,
    SECONDS as SECONDS,
    STANDALONE as STANDALONE,
    TRAIN_LOSS as TRAIN_LOSS,
    TRAIN_TOP1 as TRAIN_TOP1,
    UNIFORM as UNIFORM,
    Accuracy as Accuracy,
    ArtifactInfo as ArtifactInfo,
    BudgetInfo as BudgetInfo,
    BudgetSeries as BudgetSeries,
    Candidate as Candidate,
    CandidateStatus as CandidateStatus,
    CostEntry as CostEntry,
    EpochRow as EpochRow,
    FrozenInfo as FrozenInfo,
    GroupInfo as GroupInfo,
    Item as Item,
    Latency as Latency,
    Measured as Measured,
    MetricInfo as MetricInfo,
    Milestone as Milestone,
    ModelInfo as ModelInfo,
    NetworkRow as NetworkRow,
    Notes as Notes,
    Reproduce as Reproduce,
    Result as Result,
    RunInfo as RunInfo,
    RunKind as RunKind,
    RunStatus as RunStatus,
    SearchInfo as SearchInfo,
    Session as Session,
    SharedWeightRanks as SharedWeightRanks,
    SpaceInfo as SpaceInfo,
    Stage as Stage,
    UseOfTestSet as UseOfTestSet,
    Verification as Verification,
    Winner as Winner,
)
from randprune.store.run import (
    Run as Run,
)
from randprune.store.test_sets import (
    NEVER_OPENED as NEVER_OPENED,
    Openings as Openings,
    openings_of as openings_of,
)
