"""What one run records: the rows of its tables and its milestones, as typed, frozen dataclasses.

Rows come in numbers (candidates, networks, epochs, ledger entries); a `Milestone` exists once per
run and is stored under its class's `KEY`. Writers fill in what they know and leave the rest at the
defaults: readers, the report among them, show what is there.

Units and directions, everywhere: accuracies and ratios are shares in [0, 1]; `macs` counts
multiply-adds (FLOPs are twice that); times are seconds; sizes are bytes; scores: higher is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from randprune.errors import InvalidInputError
from randprune.space import Space
from randprune.store.codec import Json

RunKind = Literal["prune", "scratch", "bench"]
RunStatus = Literal["running", "finished", "failed", "interrupted"]
CandidateStatus = Literal["ok", "failed"]

Stage = Literal["dense", "cut", "repaired", "finetuned"]
"""How far a network has come: "cut" has lost channels and nothing else was done, "repaired" went
through a recovery without training, "finetuned" was trained (also: trained from scratch)."""

# Roles of the networks that a report sets beside each other.
DENSE = "dense"
SEARCHED = "searched"
UNIFORM = "uniform"
RANDOM_CHANNELS = "random_channels"
# The best of as many random configurations as the search has, where that is not random itself.
RANDOM_SEARCH = "random_search"
# Roles of jobs from scratch: configurations drawn without a search, candidates that were trained
# alone to compare rankings, and the network that the pre-trained setting finds at equal compute.
RANDOM_CONFIGURATION = "random_configuration"
STANDALONE = "standalone"
PRETRAINED = "pretrained"

# Keys of Candidate.scores that readers know; any other key is stored and shown under its own name.
SEARCH_TOP1 = "search_top1"
"""The task's metric (accuracy, for classes) on the search images, as a score: higher is better."""
FINALIST_TOP1 = "finalist_top1"
"""Accuracy on the search images after the stronger recovery that only finalists get."""
PROXY = "proxy"
"""Predicted quality without a forward pass, higher is better."""
FIRST_LOOK, LAST_LOOK = "look_1", "look_end"
"""Where candidates race: what it was worth on the first images, and on all of them. Those between
are look_2, ...; one that was stopped has no last one."""

# Keys of EpochRow.metrics that readers know.
TRAIN_LOSS = "train_loss"
TRAIN_TOP1 = "train_top1"
LEARNING_RATE = "learning_rate"
SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """`correct` of `images` classified right; counts, so that intervals are exact."""

    correct: int
    images: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.images or self.images == 0:
            raise InvalidInputError(
                "The 'correct' parameter of Accuracy must be within 0..images, and images at "
                f"least 1. Got {self.correct} of {self.images} instead."
            )

    @property
    def share(self) -> float:
        """Accuracy in [0, 1]."""
        return self.correct / self.images

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson's score interval for the accuracy on images of the same kind.

        It covers the chance in the choice of images; not that of training or of the search.
        """
        # Imported here: that takes half a second, for which only reports should wait.
        from scipy.stats import binomtest

        found = binomtest(self.correct, self.images).proportion_ci(confidence, method="wilson")
        # At 0 and at n of n the bound is exactly 0 or 1; rounding would miss it by one bit.
        low = 0.0 if self.correct == 0 else float(found.low)
        high = 1.0 if self.correct == self.images else float(found.high)
        return low, high


@dataclass(frozen=True, slots=True)
class Measured:
    """The value of another metric than accuracy, over so many samples; see `MetricInfo`."""

    value: float
    samples: int

    @property
    def share(self) -> float:
        """The value; a share in [0, 1] where the metric's unit is "%"."""
        return self.value

    @property
    def images(self) -> int:
        """The samples."""
        return self.samples

    def interval(self, confidence: float = 0.95) -> None:
        """None: how a value varies over samples is not known."""


Result = Accuracy | Measured
"""How well a network does: counts where right answers are counted, else a number."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that one batch takes, each repetition, after warm-up.

    `interleaved`: the networks of the run were timed in turns, so that repetition i of one and of
    another saw the same machine, and their ratio is taken repetition by repetition.
    """

    seconds: tuple[float, ...]
    batch_size: int
    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None
    interleaved: bool = False
    runtime: str = "torch"

    @property
    def setting(self) -> tuple[str, str, int, int | None, str]:
        """What must be equal for two latencies to be compared."""
        return (self.device, self.dtype, self.batch_size, self.threads, self.runtime)


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """One network at one stage: what the table that a report opens with is made of.

    Attributes:
        label: what people read, unique among the networks of a run, such as "best random".
        role: `DENSE`, `SEARCHED`, `UNIFORM`, ..., or a method's name.
        stage: how far it has come; (label, stage, seed) identifies the row.
        test: on the test set, in float32. search: on the search images.
        size_bytes: of the file that `randprune.save` writes.
        latency: one entry per setting measured.
        widths: the configuration. candidate: its index among the candidates of its method.
        seed: of the training, where several were run.
        error: why there are no numbers; a failed network is listed, not left out.
    """

    label: str
    role: str
    stage: Stage
    test: Result | None = None
    search: Result | None = None
    macs: float | None = None
    params: int | None = None
    size_bytes: int | None = None
    latency: tuple[Latency, ...] = ()
    widths: tuple[int, ...] = ()
    candidate: int | None = None
    recovery: str = ""
    epochs: float | None = None
    seed: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One configuration that a method proposed, and what is known of it.

    Attributes:
        index: 0, 1, ... within what proposed it; (method, criterion, draw, index) identifies it.
        widths: channels kept per group; any integer sequence or array is accepted.
        method: "searched", "uniform", "random_channels", ...
        criterion, draw: of a benchmark, where one method proposes several times.
        seed: of the draws that belong to this candidate alone.
        costs: by name, such as {"macs": 62.9e6, "params": 430_000}.
        scores: by name, higher is better; see `SEARCH_TOP1`, `FINALIST_TOP1`, `PROXY`.
        seconds: by phase, such as {"select": 0.02, "recover": 0.06, "evaluate": 0.3}.
        selection: hash of the channels kept, to prove that a repeated run chose the same.
        status: "failed" keeps its place, with `error`, and is never the winner.
    """

    index: int
    widths: tuple[int, ...]
    method: str = SEARCHED
    criterion: str = ""
    draw: int = 0
    seed: int | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    selection: str = ""
    status: CandidateStatus = "ok"
    error: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(int(width) for width in self.widths))

    @property
    def stopped(self) -> bool:
        """Whether it fell behind in a race, so that its scores are of some of the images."""
        return FIRST_LOOK in self.scores and LAST_LOOK not in self.scores


@dataclass(frozen=True, slots=True)
class CostEntry:
    """Compute spent on one step of a run.

    `key` identifies the step; default: the phase. Nothing takes it apart. A step that is done again
    after an interruption replaces its entry, so nothing counts twice. `macs_spent`: a training step
    counts three times its forward pass.
    """

    phase: str
    key: str = ""
    candidates: int = 0
    images_forward: int = 0
    images_backward: int = 0
    macs_spent: float = 0.0
    seconds: float = 0.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", self.phase)


@dataclass(frozen=True, slots=True)
class EpochRow:
    """Metrics of one finished epoch, counted from 1, of the network called `network`."""

    network: str
    epoch: int
    metrics: Mapping[str, float]


class Milestone:
    """Base of the dataclasses that a run holds once; `KEY` is where they are stored."""

    __slots__ = ()
    KEY: ClassVar[str]


class Item:
    """Base of the dataclasses of which a run holds many; a field `key` tells those of a `KIND`."""

    __slots__ = ()
    KIND: ClassVar[str]
    key: Any


@dataclass(frozen=True, slots=True)
class ModelInfo(Milestone):
    """What is pruned, on which data. `title` is how people call it, such as "ResNet-56"."""

    KEY: ClassVar[str] = "model"

    title: str
    name: str = ""
    weights: str = ""
    data: str = ""
    classes: int | None = None
    input_shape: tuple[int, ...] = ()
    images: Mapping[str, int] = field(default_factory=dict)
    """Images per split: {"fit": 44000, "calibration": 1000, "search": 5000, "test": 10000}."""
    test_fingerprint: str = ""
    """Which images the test set has; "" where there is none, or in records of older versions."""


@dataclass(frozen=True, slots=True)
class MetricInfo(Milestone):
    """What the numbers of a run's networks are; a run without it counts right answers.

    `task`: the task's name. `unit`: "%" for shares in [0, 1], else that of the plain number.
    """

    KEY: ClassVar[str] = "metric"

    task: str = "classification"
    name: str = "accuracy"
    unit: str = "%"
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A channel group's name and dense width."""

    name: str
    width: int


@dataclass(frozen=True, slots=True)
class FrozenInfo:
    """`channels` of the `width` positions of a layer stay, and why."""

    layer: str
    channels: int
    width: int
    reason: str


@dataclass(frozen=True, slots=True)
class SpaceInfo(Milestone):
    """The channel groups in network order, what is frozen, and the dense costs."""

    KEY: ClassVar[str] = "space"

    fingerprint: str
    groups: tuple[GroupInfo, ...]
    frozen: tuple[FrozenInfo, ...] = ()
    dense: Mapping[str, float] = field(default_factory=dict)
    reachable: tuple[float, float] | None = None
    """Lowest and highest ratio of the budget's metric that any configuration has."""

    @classmethod
    def from_space(cls, space: Space, reachable: tuple[float, float] | None = None) -> SpaceInfo:
        """The summary of a traced `Space`."""
        return cls(
            fingerprint=space.fingerprint,
            groups=tuple(GroupInfo(group.name, group.width) for group in space.groups),
            frozen=tuple(FrozenInfo(f.layer, f.channels, f.width, f.reason) for f in space.frozen),
            dense={name: float(cost.dense) for name, cost in space.costs.items()},
            reachable=reachable,
        )


@dataclass(frozen=True, slots=True)
class BudgetInfo(Milestone):
    """What was asked: `ratio` of the dense `metric` remains, within `tolerance`."""

    KEY: ClassVar[str] = "budget"

    metric: str
    ratio: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class BudgetSeries(Milestone):
    """The job of several budgets that a run is a part of; runs with an equal `job` are its others.

    `ratios`: all budgets of the job, as they were asked for.
    """

    KEY: ClassVar[str] = "budget_series"

    job: str
    ratios: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SearchInfo(Milestone):
    """How candidates were made and compared; `planned` is how many the recipe asks for."""

    KEY: ClassVar[str] = "search"

    planned: int
    strategy: str = ""
    criterion: str = ""
    recovery: str = ""
    images: int | None = None
    draws: int | None = None
    acceptance: float | None = None


@dataclass(frozen=True, slots=True)
class Winner(Milestone):
    """The candidate that the search chose, and the finalists that got a stronger recovery."""

    KEY: ClassVar[str] = "winner"

    index: int
    method: str = SEARCHED
    finalists: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification(Milestone):
    """Whether the cut network computes what the masked dense network computes.

    `relative_error`: largest difference of the outputs over their largest magnitude.
    """

    KEY: ClassVar[str] = "verification"

    passed: bool
    relative_error: float | None = None
    tolerance: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class SharedWeightRanks(Milestone):
    """How shared weights rank `networks` configurations beside training each of them alone.

    `kendall`: Kendall's tau-b of `shared` (accuracy on the search images with shared weights) and
    `alone` (test accuracy after training alone, mean over seeds), in the same order.
    """

    KEY: ClassVar[str] = "shared_weight_ranks"

    networks: int
    kendall: float
    shared: tuple[float, ...] = ()
    alone: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ArtifactInfo(Milestone):
    """The file that holds the pruned network; `file` is relative to the output folder."""

    KEY: ClassVar[str] = "artifact"

    file: str
    size_bytes: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Reproduce(Milestone):
    """What to run to get the same result: a command and the recipe (TOML) it reads."""

    KEY: ClassVar[str] = "reproduce"

    command: str
    recipe: str = ""
    recipe_file: str = "recipe.toml"


@dataclass(frozen=True, slots=True)
class UseOfTestSet(Milestone):
    """How often the test set was read before and in the final evaluation."""

    KEY: ClassVar[str] = "test_set_use"

    before_final: int
    final: int


@dataclass(frozen=True, slots=True)
class Notes(Milestone):
    """Remarks that a reader must see, such as a fallback that was taken."""

    KEY: ClassVar[str] = "notes"

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Session:
    """One process that worked on a run.

    `ended`: a time; "killed" where the process died without a word; "" while it works, and after a
    kill until the next process opens the folder.
    """

    started: str
    ended: str
    provenance: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One row of the runs table; times are ISO 8601 in UTC, "" where not reached."""

    id: int
    kind: RunKind
    recipe: Json
    recipe_hash: str
    seed: int
    fingerprint: str
    weights_hash: str
    data_fingerprint: str
    provenance: Mapping[str, Any]
    status: RunStatus
    started: str
    finished: str
    error: str
