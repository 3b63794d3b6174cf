"""Repair of a cut network without training: from second moments, or layer by layer on data."""

from randprune.recovery.base import (
    LeastSquares,
    MeasuredNorm,
    Passes,
    Recovery,
    RecoveryContext,
    Sequential,
    recoveries,
)
from randprune.recovery.chain import (
    names_of,
    needs_moments,
    parse,
    passes,
    quick_form,
    recover,
)
from randprune.recovery.collect import collect_moments
from randprune.recovery.dense import DenseStatistics
from randprune.recovery.partial import Partial
from randprune.recovery.statistics import Moments

__all__ = [
    "DenseStatistics",
    "LeastSquares",
    "MeasuredNorm",
    "Moments",
    "Partial",
    "Passes",
    "Recovery",
    "RecoveryContext",
    "Sequential",
    "collect_moments",
    "names_of",
    "needs_moments",
    "parse",
    "passes",
    "quick_form",
    "recover",
    "recoveries",
]
