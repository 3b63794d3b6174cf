"""Random channel pruning: search, cut, repair, verify and fine-tune convolutional networks."""

from randprune.artifact import load, save
from randprune.cost import Budget
from randprune.criteria import score
from randprune.errors import (
    ArtifactError,
    DataError,
    InfeasibleBudgetError,
    InvalidInputError,
    RandpruneError,
    StorageError,
    UnsupportedModelError,
    VerificationError,
    WeightsError,
)
from randprune.graph.trace import trace
from randprune.space import ChannelGroup, FrozenChannels, Selection, Slot, Space
from randprune.surgery import cut, select, verify

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "Budget",
    "ChannelGroup",
    "DataError",
    "FrozenChannels",
    "InfeasibleBudgetError",
    "InvalidInputError",
    "RandpruneError",
    "Selection",
    "Slot",
    "Space",
    "StorageError",
    "UnsupportedModelError",
    "VerificationError",
    "WeightsError",
    "cut",
    "load",
    "save",
    "score",
    "select",
    "trace",
    "verify",
]
