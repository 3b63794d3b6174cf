"""Is a method better than the baseline, worse, equivalent to it - or can nobody say yet?

Results are paired: a method and the baseline share the configuration draw and the seed of training,
so that their difference is free of both. Two families of tests over the methods, each with Holm's
correction: paired t tests for a difference, and two one-sided tests (TOST) for equivalence within a
stated margin. Known shortcoming: t tests assume differences that are about normal.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

import numpy as np
from scipy.special import stdtr, stdtrit

from randprune.bench.stats.estimate import (
    Estimate,
    FloatArray,
    check_confidence,
    finite,
    mean_interval,
    standard_error,
)
from randprune.errors import InvalidInputError

Verdict = Literal["better", "worse", "equivalent", "undecided"]
Pair = tuple[Hashable, Hashable]
"""(configuration, seed): what two results have to share to be compared."""

K = TypeVar("K", bound=Hashable)
"""What methods go by: a name, or a row of a table."""

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Comparison(Generic[K]):
    """One method against the baseline, in units of the values (shares, for accuracies).

    Attributes:
        name: what the method goes by.
        difference: mean of method - baseline, with its interval (1 - alpha, of this one
            comparison, without correction).
        pairs: results compared. units: independent ones among them (see `compare_with_baseline`).
        p_difference: of the two-sided t test against no difference; None where undefined.
        p_equivalence: of TOST against a difference of the margin or more; None where undefined.
        p_difference_holm, p_equivalence_holm: the same, corrected for all methods of the family.
        margin: the smallest difference that matters. alpha: of the corrected tests.
        verdict: "better" or "worse": different from the baseline, and not equivalent;
            "equivalent": within the margin, also where a difference below it is significant;
            "undecided": neither was shown.
        note: what a reader has to know; "" where there is nothing.
    """

    name: K
    difference: Estimate
    pairs: int
    units: int
    p_difference: float | None
    p_equivalence: float | None
    margin: float
    alpha: float = ALPHA
    p_difference_holm: float | None = None
    p_equivalence_holm: float | None = None
    verdict: Verdict = "undecided"
    note: str = ""


def holm(p_values: Sequence[float]) -> FloatArray:
    """Holm's step-down adjusted p-values, in the given order, (m,).

    ``p~_(k) = max_{j <= k} min(1, (m - j + 1) p_(j))`` over the sorted values: rejecting where
    p~ <= alpha keeps the chance of any false rejection at alpha, whatever the dependence (Holm,
    Scandinavian Journal of Statistics 1979).

    Raises:
        InvalidInputError: a value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.size == 0:
        return p
    if not ((p >= 0) & (p <= 1)).all():
        raise InvalidInputError(
            f"The 'p_values' parameter of holm must lie in [0, 1]. Got {p.tolist()} instead."
        )
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1.0, p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def paired_difference(
    name: K,
    differences: Sequence[float] | FloatArray,
    *,
    margin: float,
    alpha: float = ALPHA,
    resolution: float = 0.0,
) -> Comparison[K]:
    """Both tests of one method, not yet corrected for others and without a verdict.

    With mean d, standard error e and n - 1 degrees of freedom: difference
    ``p = 2 P(T > |d| / e)``; equivalence (Schuirmann, J. Pharmacokinet. Biopharm. 1987)
    ``p = max(P(T > (d + margin) / e), P(T < (d - margin) / e))``, below alpha just where the
    1 - 2·alpha interval lies within ±margin.

    Differences that are all equal have no standard error. Where all are exactly zero, the two did
    the same on every pair, which is equivalence (p = 0, and no interval); otherwise no test is
    possible. With a `resolution` r of the results, rounding alone gives their differences the
    standard deviation r / √6, which then is the least that is taken.

    Args:
        differences: method - baseline, one per independent unit, (n,).
        margin: > 0, in the same units.
        alpha: level of the interval (1 - alpha) and of the verdicts to come.
        resolution: smallest step between two results.

    Raises:
        InvalidInputError: no or non-finite differences, margin not positive, alpha not in (0, 1).
    """
    x = finite(differences, "differences", "paired_difference")
    check_confidence(1 - alpha, "paired_difference")
    if not margin > 0:
        raise InvalidInputError(
            f"The 'margin' parameter of paired_difference must be positive. Got {margin} instead."
        )
    step = resolution * 2**0.5
    estimate = mean_interval(x, 1 - alpha, step)
    found = Comparison(name, estimate, x.size, x.size, None, None, margin, alpha)
    if x.size == 1:
        return replace(found, note="one pair: no test is possible")
    error = standard_error(x, step)
    if error == 0:
        if estimate.value == 0:
            note = f"the same result in all {x.size} pairs"
            return replace(found, p_difference=1.0, p_equivalence=0.0, note=note)
        return replace(found, note="the differences do not vary: no test is possible")
    df, mean = x.size - 1, estimate.value
    return replace(
        found,
        p_difference=2 * float(stdtr(df, -abs(mean) / error)),
        p_equivalence=float(stdtr(df, (abs(mean) - margin) / error)),
    )


def compare_with_baseline(
    scores: Mapping[K, Mapping[Pair, float]],
    baseline: K,
    *,
    margin: float,
    alpha: float = ALPHA,
    resolution: float = 0.0,
) -> tuple[Comparison[K], ...]:
    """Every other method against the baseline, corrected over all of them, with a verdict each.

    Pairs that share a configuration are not independent: the criterion may suit just that one.
    So the differences of a configuration are averaged over its seeds first, and the configurations
    are the units of the tests. Where all pairs share one configuration, the seeds are the units and
    the note says that the verdict holds for that configuration only.

    Both families of p-values are corrected by Holm. A verdict "equivalent" takes the corrected
    equivalence test; "better" and "worse" take the corrected test of difference.

    Args:
        scores: higher = better, by method and then by (configuration, seed).
        baseline: one of the methods.
        margin, alpha, resolution: see `paired_difference`.

    Returns:
        One comparison per other method, in the order of `scores`; methods without a pair in common
        with the baseline are left out.

    Raises:
        InvalidInputError: the baseline has no scores; see also `paired_difference`.
    """
    if not scores.get(baseline):
        raise InvalidInputError(
            f"The 'baseline' parameter of compare_with_baseline must be a method with results. "
            f"Got {baseline!r}; there are: {', '.join(map(repr, scores)) or 'none'}."
        )
    found = []
    for name, results in scores.items():
        if name == baseline:
            continue
        common = [pair for pair in results if pair in scores[baseline]]
        if not common:
            continue
        by_block: dict[Hashable, list[float]] = {}
        for pair in common:
            by_block.setdefault(pair[0], []).append(results[pair] - scores[baseline][pair])
        one = len(by_block) == 1 and len(common) > 1
        units = [d for ds in by_block.values() for d in ds] if one else _means(by_block)
        test = paired_difference(name, units, margin=margin, alpha=alpha, resolution=resolution)
        lost = len(set(results) | set(scores[baseline])) - len(common)
        notes = [test.note] if test.note else []
        if one:
            notes.append("one configuration: the verdict holds for it alone")
        if lost:
            notes.append(f"{lost} results without a partner are left out")
        found.append(replace(test, pairs=len(common), note="; ".join(notes)))
    return _judged(found)


def largest_difference(comparisons: Sequence[Comparison[K]]) -> float | None:
    """The least margin within which all comparisons are equivalent at their alpha, jointly.

    Each one alone is equivalent for margins above the farther end of its 1 - 2·alpha interval; that
    *all* are needs no correction (intersection-union test: Berger, Hsu, Statistical Science 1996).
    In words: "with confidence 1 - alpha, no method differs by more than this".

    Returns:
        None where a comparison has no standard error, or there is no comparison.
    """
    bounds = []
    for c in comparisons:
        if c.difference.interval is None:
            return None
        low, high = c.difference.interval
        df = c.units - 1
        error = (high - low) / 2 / float(stdtrit(df, 1 - c.alpha / 2))
        bounds.append(abs(c.difference.value) + float(stdtrit(df, 1 - c.alpha)) * error)
    return max(bounds, default=None)


def detectable_difference(comparisons: Sequence[Comparison[K]]) -> float | None:
    """The least mean difference that Holm's correction over the family calls significant.

    For the row of median standard error e: ``t(units - 1, 1 - alpha / (2 m)) · e`` with the m tests
    of the family, Holm's first step, which every difference has to pass or another row before it.
    None where no test was possible.
    """
    tested = [c for c in comparisons if c.p_difference is not None and c.difference.interval]
    needed = []
    for c in tested:
        low, high = c.difference.interval or (0.0, 0.0)
        error = (high - low) / 2 / float(stdtrit(c.units - 1, 1 - c.alpha / 2))
        needed.append(float(stdtrit(c.units - 1, 1 - c.alpha / (2 * len(tested)))) * error)
    return float(np.median(needed)) if needed else None


def _means(by_block: Mapping[Hashable, Sequence[float]]) -> list[float]:
    return [float(np.mean(values)) for values in by_block.values()]


def _judged(found: Sequence[Comparison[K]]) -> tuple[Comparison[K], ...]:
    testable = [c for c in found if c.p_difference is not None and c.p_equivalence is not None]
    differ = holm([c.p_difference for c in testable if c.p_difference is not None])
    same = holm([c.p_equivalence for c in testable if c.p_equivalence is not None])
    judged: dict[K, Comparison[K]] = {}
    for c, p_differ, p_same in zip(testable, differ.tolist(), same.tolist(), strict=True):
        verdict: Verdict = "undecided"
        note = c.note
        if p_same <= c.alpha:
            verdict = "equivalent"
            if p_differ <= c.alpha:
                more = "a difference was shown, but one below the margin"
                note = f"{note}; {more}" if note else more
        elif p_differ <= c.alpha:
            verdict = "better" if c.difference.value > 0 else "worse"
        judged[c.name] = replace(
            c,
            p_difference_holm=p_differ,
            p_equivalence_holm=p_same,
            verdict=verdict,
            note=note,
        )
    return tuple(judged.get(c.name, c) for c in found)
