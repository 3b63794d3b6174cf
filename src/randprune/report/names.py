"""What things are called on a page, and the colour and symbol that each keeps in all figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from randprune.bench.keys import RANDOM_CRITERION, Row
from randprune.bench.records import BenchRun, Setting
from randprune.bench.stats import Verdict
from randprune.report.chart import SERIES
from randprune.store import DENSE, RANDOM_CHANNELS, RANDOM_SEARCH, SEARCHED, UNIFORM, Stage

METRIC_NAMES = {
    "macs": "MACs",
    "params": "parameters",
    "activations": "activations",
    "attention_macs": "MACs in attention",
}
IMAGE_NAMES = {
    "fit": "Training images",
    "calibration": "Calibration images",
    "search": "Search images",
    "test": "Test images",
}

ROLES = (DENSE, SEARCHED, UNIFORM, RANDOM_CHANNELS)
"""Networks that have a colour of their own, which is named like them."""

_STAGES: Mapping[Stage, str] = {
    "dense": "dense",
    "cut": "cut only",
}
_METHODS = {
    SEARCHED: "candidates of the search",
    UNIFORM: "uniform width",
    RANDOM_CHANNELS: "random channels",
    RANDOM_SEARCH: "random search",
}
_SCORES = {
    "proxy": "proxy, no forward pass",
    "minus_kl": "divergence from the dense network",
    "minus_loss": "loss",
    "search": "search accuracy",
    "search_top1": "search accuracy",
    "test_before": "test accuracy before training",
    "test_after": "test accuracy after training",
}


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one setting.

    Attributes:
        training: how networks are trained, within a sentence. trained: what they are then.
        untrained: when they were looked at before that.
        before, before_hint: heading of what they were worth then.
        before_axis: the same on an axis.
        before_after: heading of what compares it with the result.
        spent: what a result's compute went to.
        predicts: the question whether that tells what training gives.
        setting: what all networks come from, in sentences.
        runner: what the runner does with every proposal.
        checkpoint: what the run's weights hash belongs to.
        uncovered: what intervals over draws say nothing about.
        none: what a length of 0 means, "" where there is none.
        repaired: what a network is after its repair.
        scores: what is known of a network before training, by name.
    """

    training: str
    trained: str
    untrained: str
    before: str
    before_hint: str
    before_axis: str
    before_after: str
    spent: str
    predicts: str
    setting: str
    runner: str
    checkpoint: str
    uncovered: str
    none: str
    repaired: str = "repaired, no training"
    scores: Mapping[str, str] = field(default_factory=lambda: _SCORES)

    @property
    def heading(self) -> str:
        """How networks are trained, at the beginning of a heading."""
        return self.training.capitalize()

    def stage(self, stage: Stage) -> str:
        """A network's stage as people read it."""
        own = {"repaired": self.repaired, "finetuned": self.trained}
        return own.get(stage) or _STAGES[stage]

    def method(self, method: str) -> str:
        """The method of a candidate as people read it."""
        return _METHODS.get(method, method)

    def score(self, name: str) -> str:
        """What people call a score."""
        return self.scores.get(name, name)


_SETTINGS: dict[Setting, Words] = {
    "pretrained": Words(
        training="fine-tuning",
        trained="fine-tuned",
        untrained="before training",
        before="Before training",
        before_hint="repaired only",
        before_axis="test accuracy before training",
        before_after="Before and after fine-tuning",
        spent="scores of its criterion, search, training",
        predicts="Does a score before training predict the result after it?",
        setting="One pre-trained network is pruned by every method, always from the same "
        "checkpoint.",
        runner="repairs it ({recovery}), trains it and tests it",
        checkpoint="Checkpoint",
        uncovered="the choice of test images",
        none=" (0 = repaired only)",
    ),
    "scratch": Words(
        training="training",
        trained="trained",
        untrained="with shared weights",
        before="Shared weights",
        before_hint="search accuracy",
        before_axis="search accuracy with shared weights",
        before_after="Shared weights against training alone",
        spent="shared weights where it searched with them, search, training",
        predicts="Do shared weights rank networks as training alone does?",
        setting="There is no pre-trained network. A widened one gets one set of shared weights, "
        "which configurations are compared with; then every result is trained from random "
        "weights, the dense network too.",
        runner="cuts it, trains it from random weights and tests it",
        checkpoint="Shared weights",
        uncovered="the choice of test images, or other shared weights than these",
        none="",
        scores={**_SCORES, "search": "accuracy with shared weights",
                "search_top1": "accuracy with shared weights",
                "minus_loss": "loss with shared weights"},
    ),
}  # fmt: skip


def words_of(setting: Setting) -> Words:
    """The words of a setting."""
    return _SETTINGS[setting]


VERDICT_COLORS: dict[Verdict, str] = {
    "better": "series_5",
    "equivalent": "searched",
    "undecided": "dense",
    "worse": "series_4",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How a row is drawn: name of its kind in the legend, colour, symbol."""

    legend: str
    color: str
    symbol: str
    is_reference: bool = False

    @property
    def size(self) -> float:
        """Of its symbol, in pixels: shapes of one size do not look equally large."""
        return 14 if self.is_reference else 11 if self.symbol == "triangle" else 9


class Names:
    """Short, unique names of a run's rows.

    Rows of the reference's method go by their criterion, a method with a single row by its own
    name, any other row by both. From scratch there are no criteria to name.
    """

    def __init__(self, run: BenchRun) -> None:
        rows = run.protocol.rows
        self.words = words_of(run.protocol.setting)
        self.ranked = run.protocol.setting == "pretrained"
        self.reference = run.protocol.reference
        self.dense = run.protocol.dense_row
        labels = [row.label for row in rows]
        short = {}
        for row in rows:
            label, criterion = row.label, row.criterion
            if row == self.dense:
                short[row] = "dense network"
            elif labels.count(label) == 1:
                short[row] = spaced(label)
            elif label == self.reference.label:
                short[row] = (
                    "random ranking" if criterion == RANDOM_CRITERION else spaced(criterion)
                )
            else:
                short[row] = f"{spaced(label)} with {spaced(criterion)}"
        taken = list(short.values())
        self._short = {
            row: name if taken.count(name) == 1 else str(row) for row, name in short.items()
        }
        methods = {info.label: info.method for info in run.protocol.methods}
        others = [
            label
            for label in dict.fromkeys(labels)
            if label != self.reference.label
            and methods.get(label) not in (UNIFORM, RANDOM_CHANNELS, DENSE)
        ]
        self._looks: dict[Row, Look] = {}
        for row in rows:
            label, method = row.label, methods.get(row.label)
            if row == self.reference:
                look = Look(
                    f"reference: {self.reference_name}", SEARCHED, "star", is_reference=True
                )
            elif method == DENSE:
                look = Look("dense network", DENSE, "square")
            elif label == self.reference.label:
                look = Look(f"{spaced(label)}, other criteria", "candidate", "circle")
            elif method == UNIFORM:
                look = Look(spaced(label), UNIFORM, "diamond")
            elif method == RANDOM_CHANNELS:
                look = Look(spaced(label), RANDOM_CHANNELS, "triangle")
            else:
                look = Look(spaced(label), SERIES[others.index(label) % len(SERIES)], "square")
            self._looks[row] = look

    def of(self, row: Row) -> str:
        """The short name of a row."""
        return self._short.get(row, str(row))

    def is_same_method(self, row: Row) -> bool:
        """Whether a row differs from the reference by its criterion only."""
        return row.label == self.reference.label

    def is_random_control(self, row: Row) -> bool:
        """Whether a row is the reference's method with channels ranked at random."""
        return self.is_same_method(row) and row.criterion == RANDOM_CRITERION

    def detail(self, row: Row) -> str:
        """The part of a row's full name that its short name leaves out."""
        label, criterion = spaced(row.label), spaced(row.criterion)
        short = self.of(row)
        if not self.ranked:
            return "full width" if row == self.dense else ""
        if short == label:
            return f"with {criterion}"
        return label if label not in short else ""

    @property
    def reference_name(self) -> str:
        """The reference in full: "random search with l1"; from scratch: "random search"."""
        label, criterion = self.reference.label, self.reference.criterion
        if not self.ranked:
            return spaced(label)
        return f"{spaced(label)} with {spaced(criterion)}"

    def look(self, row: Row) -> Look:
        """How a row is drawn."""
        return self._looks[row]


def spaced(name: str) -> str:
    """A recipe's name as people read it."""
    return name.replace("_", " ")
