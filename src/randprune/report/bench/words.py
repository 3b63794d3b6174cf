"""What a benchmark's page calls things, by setting: nothing is tuned that began at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from randprune.bench.records import Setting

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
        training: how networks are trained, within a sentence.
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
        scores: what is known of a network before training, by name.
    """

    training: str
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
    scores: Mapping[str, str] = field(default_factory=lambda: _SCORES)

    @property
    def heading(self) -> str:
        """How networks are trained, at the beginning of a heading."""
        return self.training.capitalize()

    def score(self, name: str) -> str:
        """What people call a score."""
        return self.scores.get(name, name)


_SETTINGS: dict[Setting, Words] = {
    "pretrained": Words(
        training="fine-tuning",
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
