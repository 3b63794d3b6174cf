"""What things are called on the page, and which colour a network keeps through all figures."""

from __future__ import annotations

from randprune.report.chart import SERIES
from randprune.report.records import RunRecord
from randprune.store import DENSE, RANDOM_CHANNELS, SEARCHED, UNIFORM, Stage

_STAGE_NAMES: dict[Stage, str] = {
    "dense": "dense",
    "cut": "cut only",
    "repaired": "repaired, no training",
    "finetuned": "fine-tuned",
}
METRIC_NAMES = {"macs": "MACs", "params": "parameters", "activations": "activations"}
_METHOD_NAMES = {
    SEARCHED: "random configurations",
    UNIFORM: "uniform width",
    RANDOM_CHANNELS: "random channels",
}
_ROLES = (DENSE, SEARCHED, UNIFORM, RANDOM_CHANNELS)


def method_name(method: str) -> str:
    """A method as people read it."""
    return _METHOD_NAMES.get(method, method)


def from_scratch(record: RunRecord) -> bool:
    """Whether the run's networks were trained from random weights."""
    return record.info.kind == "scratch"


def stage_name(record: RunRecord, stage: Stage) -> str:
    """A stage as people read it: a network that had no weights before is not fine-tuned."""
    if stage == "finetuned" and from_scratch(record):
        return "trained"
    return _STAGE_NAMES[stage]


def training_name(record: RunRecord) -> str:
    """What the run's training is called: "Training" from random weights, else "Fine-tuning"."""
    return "Training" if from_scratch(record) else "Fine-tuning"


def color_of(record: RunRecord, label: str) -> str:
    """The colour of a network: that of its role, or one of the series for any other method."""
    roles = {row.label: row.role for row in record.networks}
    role = roles.get(label, label)
    if role in _ROLES:
        return role
    others = [name for name in dict.fromkeys(roles.values()) if name not in _ROLES]
    return SERIES[others.index(role) % len(SERIES)] if role in others else SERIES[0]
