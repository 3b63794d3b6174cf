"""Importance of channels: one criterion a file, all behind `score`."""

from randprune.criteria.base import Criterion, ScoringContext, criteria
from randprune.criteria.norms import L1, L2
from randprune.criteria.random import Random
from randprune.criteria.scoring import score

__all__ = ["L1", "L2", "Criterion", "Random", "ScoringContext", "criteria", "score"]
