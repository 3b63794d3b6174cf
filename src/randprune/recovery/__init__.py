"""Repair of a cut network without training: from second moments, or layer by layer on data."""

from randprune.recovery.base import (
    LeastSquares,
    MeasuredNorm,
    Recovery,
    RecoveryContext,
    Sequential,
    parse,
    recover,
    recoveries,
)
from randprune.recovery.statistics import Moments, collect_moments

__all__ = [
    "LeastSquares",
    "MeasuredNorm",
    "Moments",
    "Recovery",
    "RecoveryContext",
    "Sequential",
    "collect_moments",
    "parse",
    "recover",
    "recoveries",
]
