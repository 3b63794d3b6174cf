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
