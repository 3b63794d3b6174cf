"""How much of the spread comes from drawing configurations, and how much from training them.

Method: nested random effects y_ct = mu + a_c + e_ct (configuration c, training t of it), variance
components by the method of moments (Searle, Casella, McCulloch, "Variance Components", 1992).
Known shortcomings: a configuration component that comes out negative is clamped to 0, which biases
small ones upwards; the interval of the configuration component is Williams' (Biometrika 1962),
whose coverage is at least 2·confidence - 1 and in practice close to the nominal one, and takes
unequal numbers of trainings by their effective number n0, which is approximate.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, fdtri

from randprune.bench.stats.estimate import (
    CONFIDENCE,
    Estimate,
    FloatArray,
    check_confidence,
    finite,
)
from randprune.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class VarianceSplit:
    """Variances by source, in squared units of the values; None where not estimable.

    Attributes:
        configuration: of the expected result from configuration to configuration.
        training: of repeated trainings of one configuration.
        configurations, trainings: how many there were in all.
        clamped: the estimate of `configuration` was negative and set to 0.
        note: why a part is missing, or what was clamped; "" where there is nothing to say.
    """

    configuration: Estimate | None
    training: Estimate | None
    configurations: int
    trainings: int
    clamped: bool = False
    note: str = ""

    @property
    def share(self) -> float | None:
        """The share of the configuration draw in the variance of one training, in [0, 1]."""
        if self.configuration is None or self.training is None:
            return None
        whole = self.configuration.value + self.training.value
        return self.configuration.value / whole if whole else None


def variance_split(
    groups: Mapping[Hashable, Sequence[float] | FloatArray], confidence: float = CONFIDENCE
) -> VarianceSplit:
    """The variance of the configuration draw and that of training, by the method of moments.

    With C configurations of n_c trainings, N in all, within and between mean squares MSW and MSB:
    ``training = MSW`` and ``configuration = max(0, (MSB - MSW) / n0)``,
    ``n0 = (N - sum n_c² / N) / (C - 1)``. Unequal n_c are allowed. The training interval is the
    exact chi-squared one for normal errors.

    Without any configuration that was trained twice, both sources are one and cannot be told apart;
    with a single configuration only training can be estimated. `note` says so.

    Args:
        groups: results by configuration, each (n_c,).
        confidence: of the intervals, in (0, 1).

    Raises:
        InvalidInputError: no groups, an empty one, or values that are not finite.
    """
    check_confidence(confidence, "variance_split")
    arrays = [finite(values, "groups", "variance_split") for values in groups.values()]
    if not arrays:
        raise InvalidInputError("variance_split needs at least one configuration. Got none.")
    configurations, trainings = len(arrays), sum(a.size for a in arrays)
    within_df, between_df = trainings - configurations, configurations - 1
    if within_df == 0:
        note = (
            "each configuration was trained once, so that the draw of configurations and training "
            "cannot be told apart"
        )
        return VarianceSplit(None, None, configurations, trainings, note=note)
    within = sum(float(((a - a.mean()) ** 2).sum()) for a in arrays) / within_df
    tail = (1 - confidence) / 2
    training = Estimate(
        within,
        within * within_df / float(chdtri(within_df, tail)) if within else None,
        within * within_df / float(chdtri(within_df, 1 - tail)) if within else None,
        within_df,
        confidence,
        "" if within else "repeated trainings gave equal results: no interval",
    )
    if between_df == 0:
        note = "one configuration: the variance between configurations cannot be estimated"
        return VarianceSplit(None, training, configurations, trainings, note=note)
    sizes = np.array([a.size for a in arrays], dtype=np.float64)
    means = np.array([a.mean() for a in arrays])
    grand = float((sizes * means).sum() / trainings)
    between = float((sizes * (means - grand) ** 2).sum()) / between_df
    effective = (trainings - float((sizes**2).sum()) / trainings) / between_df
    value = (between - within) / effective

    def bound(upper: bool) -> float:
        side = tail if upper else 1 - tail
        ratio = float(fdtri(between_df, within_df, side))
        spread = between_df * (between - within * ratio)
        return max(0.0, spread / (effective * float(chdtri(between_df, 1 - side))))

    clamped = value < 0
    notes = []
    if clamped:
        notes.append(
            "configurations differ by less than training alone explains: their variance was "
            "negative and is set to 0"
        )
    low, high = bound(upper=False), bound(upper=True)
    if high == 0:
        notes.append("no interval for the configurations: they agree more than chance allows")
    configuration = Estimate(
        max(0.0, value),
        low if high else None,
        high if high else None,
        configurations,
        confidence,
    )
    return VarianceSplit(
        configuration, training, configurations, trainings, clamped, "; ".join(notes)
    )
