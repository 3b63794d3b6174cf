"""Importance of channels: one criterion a file, all behind `score`."""

from randprune.criteria.base import Criterion, ScoringContext, criteria, passes_of
from randprune.criteria.bn_scale import BNScale
from randprune.criteria.chip import Chip
from randprune.criteria.empirical_sensitivity import EmpiricalSensitivity
from randprune.criteria.gates import Gates
from randprune.criteria.geometric_median import GeometricMedian
from randprune.criteria.kl import KL
from randprune.criteria.lamp import Lamp
from randprune.criteria.norms import L1, L2
from randprune.criteria.random import Random
from randprune.criteria.reconstruction import Reconstruction
from randprune.criteria.scoring import score, score_all
from randprune.criteria.taylor import Taylor

__all__ = [
    "KL",
    "L1",
    "L2",
    "BNScale",
    "Chip",
    "Criterion",
    "EmpiricalSensitivity",
    "Gates",
    "GeometricMedian",
    "Lamp",
    "Random",
    "Reconstruction",
    "ScoringContext",
    "Taylor",
    "criteria",
    "passes_of",
    "score",
    "score_all",
]
