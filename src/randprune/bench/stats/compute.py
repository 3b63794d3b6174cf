"""Accuracy at equal total compute: what each method has to show for the same multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from randprune.bench.stats.estimate import CONFIDENCE, Estimate, FloatArray, finite, mean_interval
from randprune.errors import InvalidInputError

Curve = tuple[Sequence[float] | FloatArray, Sequence[float] | FloatArray]
"""(compute spent, accuracy reached): one repetition's points, in any order, (P,) each."""


def at_equal_compute(
    curves: Sequence[Curve], compute: float, confidence: float = CONFIDENCE, resolution: float = 0.0
) -> Estimate | None:
    """The mean accuracy over repetitions, each taken at its last point within the compute.

    Of repetition r with points (m, y): ``y_r = y at max{m : m <= compute}``. The *last* point
    counts, not the best, which would be chosen on the test set; between points nothing is
    interpolated, since nobody trained there. Then `mean_interval` over the repetitions.

    Args:
        curves: one a seed: total compute (MACs) and accuracy of each point.
        compute: total MACs that may be spent.
        confidence, resolution: see `mean_interval`.

    Returns:
        None where the first point of any repetition already costs more.

    Raises:
        InvalidInputError: no curves, or one whose two parts differ in length or are not finite.
    """
    if not curves:
        raise InvalidInputError("at_equal_compute needs at least one curve. Got none.")
    reached = []
    for spent, accuracy in curves:
        macs = finite(spent, "curves", "at_equal_compute")
        values = finite(accuracy, "curves", "at_equal_compute")
        if macs.size != values.size:
            raise InvalidInputError(
                "Each curve of at_equal_compute must have as many accuracies as costs. "
                f"Got {values.size} and {macs.size} instead."
            )
        within = macs <= compute
        if not within.any():
            return None
        reached.append(float(values[within][macs[within].argmax()]))
    return mean_interval(reached, confidence, resolution)


def candidates_affordable(compute: float, fixed: float, per_candidate: float) -> int:
    """How many candidates a search may look at: floor((compute - fixed) / per candidate), >= 0.

    All in MACs; `fixed` is what is spent in any case (scores, calibration, fine-tuning).

    Raises:
        InvalidInputError: a candidate that costs nothing: there would be no limit.
    """
    if not per_candidate > 0:
        raise InvalidInputError(
            "The 'per_candidate' parameter of candidates_affordable must be positive. "
            f"Got {per_candidate} instead."
        )
    return max(0, math.floor((compute - fixed) / per_candidate * (1 + 1e-12)))
