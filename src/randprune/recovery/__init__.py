"""Repair of a cut network without training: from second moments, or layer by layer on data."""

from randprune.recovery.base import (
    LeastSquares,
    MeasuredNorm,
    Recovery,
    RecoveryContext,
    Sequential,
    recoveries,
)
from randprune.recovery.chain import (
    images_forward,
    names_of,
    needs_moments,
    parse,
    quick_form,
    recover,
)
from randprune.recovery.dense import DenseStatistics
from randprune.recovery.statistics import Moments, collect_moments

__all__ = [
    "DenseStatistics",
    "LeastSquares",
    "MeasuredNorm",
    "Moments",
    "Recovery",
    "RecoveryContext",
    "Sequential",
    "collect_moments",
    "images_forward",
    "names_of",
    "needs_moments",
    "parse",
    "quick_form",
    "recover",
    "recoveries",
]
