"""Verdicts on synthetic methods: identical, really different, and not to be told."""

from __future__ import annotations

import numpy as np
import pytest

from randprune.bench.stats import (
    Comparison,
    compare_with_baseline,
    detectable_difference,
    holm,
    largest_difference,
    paired_difference,
)
from randprune.errors import InvalidInputError

MARGIN = 0.005


def results(
    rng: np.random.Generator,
    effects: dict[str, float],
    configurations: int = 8,
    seeds: int = 3,
    training: float = 0.002,
    taste: float = 0.001,
) -> dict[str, dict[tuple[object, object], float]]:
    """Accuracies: common configuration draws, a method's taste for each, and training noise."""
    base = rng.normal(0.9, 0.02, configurations)
    return {
        name: {
            (c, s): base[c] + effect + own[c] + training * rng.normal()
            for c in range(configurations)
            for s in range(seeds)
        }
        for name, effect in effects.items()
        for own in [taste * rng.normal(size=configurations)]
    }


def verdicts(comparisons: tuple[Comparison, ...]) -> dict[str, str]:
    return {c.name: c.verdict for c in comparisons}


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04, then monotone.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).size == 0
    with pytest.raises(InvalidInputError, match=r"must lie in \[0, 1\]"):
        holm([0.5, float("nan")])


def test_paired_tests_by_hand() -> None:
    # Mean 0.002, s = 0.001: t = sqrt(12), for TOST sqrt(27); P(T > t) = (1 - t / sqrt(2 + t²)) / 2.
    found = paired_difference("x", [0.001, 0.002, 0.003], margin=0.005)
    assert found.p_difference == pytest.approx(1 - 12**0.5 / 14**0.5)
    assert found.p_equivalence == pytest.approx((1 - 27**0.5 / 29**0.5) / 2)


def test_equivalence_is_the_90_percent_interval_within_the_margin() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = rng.normal(0.001, 0.003, 6)
        ninety = paired_difference("x", x, margin=MARGIN, alpha=0.1).difference.interval
        assert ninety is not None
        found = paired_difference("x", x, margin=MARGIN)
        assert found.p_equivalence is not None
        within = ninety[0] > -MARGIN and ninety[1] < MARGIN
        assert (found.p_equivalence < 0.05) == within


def test_methods_of_one_law_come_out_equivalent() -> None:
    rng = np.random.default_rng(1)
    found = compare_with_baseline(
        results(rng, {"random": 0.0, "l1": 0.0, "l2": 0.0, "kl": 0.0}), "random", margin=MARGIN
    )
    assert verdicts(found) == dict.fromkeys(("l1", "l2", "kl"), "equivalent")
    assert {c.units for c in found} == {8}
    assert {c.pairs for c in found} == {24}
    most = largest_difference(found)
    assert most is not None
    assert max(abs(c.difference.value) for c in found) < most < MARGIN


def test_the_very_same_results_are_equivalent_without_an_interval() -> None:
    same = results(np.random.default_rng(1), {"random": 0.0})["random"]
    (found,) = compare_with_baseline({"random": same, "copy": same}, "random", margin=MARGIN)
    assert found.verdict == "equivalent"
    assert found.difference.interval is None
    assert "the same result in all" in found.note
    assert largest_difference((found,)) is None
    constant = paired_difference("x", [0.25, 0.25, 0.25], margin=MARGIN)
    assert (constant.p_difference, constant.p_equivalence) == (None, None)
    assert "do not vary" in constant.note
    rounded = paired_difference("x", [0.0, 0.0, 0.0], margin=MARGIN, resolution=1e-4)
    assert rounded.difference.interval == pytest.approx((-1.014e-4, 1.014e-4), rel=1e-3)


def test_planted_differences_are_found_in_both_directions() -> None:
    rng = np.random.default_rng(2)
    scores = results(rng, {"random": 0.0, "good": 0.01, "bad": -0.02, "l1": 0.0})
    found = compare_with_baseline(scores, "random", margin=MARGIN)
    assert verdicts(found) == {"good": "better", "bad": "worse", "l1": "equivalent"}
    assert found[0].difference.value == pytest.approx(0.01, abs=0.003)


def test_a_difference_below_the_margin_is_equivalent_and_said() -> None:
    scores = results(np.random.default_rng(3), {"random": 0.0, "l1": 0.002}, taste=0.0, seeds=9)
    (found,) = compare_with_baseline(scores, "random", margin=MARGIN)
    assert found.verdict == "equivalent"
    assert "one below the margin" in found.note


def test_noise_leaves_it_undecided() -> None:
    scores = results(np.random.default_rng(4), {"random": 0.0, "l1": 0.0}, 3, 2, training=0.03)
    assert verdicts(compare_with_baseline(scores, "random", margin=MARGIN)) == {"l1": "undecided"}


def test_false_claims_stay_rare_over_the_whole_family() -> None:
    rng = np.random.default_rng(5)
    names = {"random": 0.0, **{f"m{i}": 0.0 for i in range(6)}}
    wrong_difference = wrong_equivalence = 0
    for _ in range(200):
        same = compare_with_baseline(results(rng, names, 6, 2), "random", margin=MARGIN)
        wrong_difference += any(c.verdict in ("better", "worse") for c in same)
        # Truly different by just the margin: calling any of them equivalent is wrong.
        edge = {name: MARGIN * (name != "random") for name in names}
        found = compare_with_baseline(results(rng, edge, 6, 2), "random", margin=MARGIN)
        wrong_equivalence += any(c.verdict == "equivalent" for c in found)
    assert wrong_difference / 200 <= 0.08
    assert wrong_equivalence / 200 <= 0.08


def test_seeds_of_one_configuration_do_not_pass_for_configurations() -> None:
    # The method suits some configurations and not others; many seeds do not change that.
    rng = np.random.default_rng(6)
    wrong = 0
    for _ in range(200):
        scores = results(rng, {"random": 0.0, "l1": 0.0}, 3, 20, taste=0.01)
        (found,) = compare_with_baseline(scores, "random", margin=MARGIN)
        wrong += found.verdict in ("better", "worse")
    assert wrong / 200 <= 0.09


def test_one_configuration_is_said() -> None:
    scores = results(np.random.default_rng(7), {"random": 0.0, "l1": 0.05}, 1, 5)
    (found,) = compare_with_baseline(scores, "random", margin=MARGIN)
    assert (found.units, found.verdict) == (5, "better")
    assert "one configuration" in found.note


def test_one_pair_decides_nothing() -> None:
    scores = {"random": {(0, 0): 0.5}, "l1": {(0, 0): 0.9}, "l2": {(1, 1): 0.9}}
    (found,) = compare_with_baseline(scores, "random", margin=MARGIN)
    assert (found.name, found.verdict, found.difference.interval) == ("l1", "undecided", None)
    assert "no test is possible" in found.note


def test_results_without_a_partner_are_counted() -> None:
    scores = results(np.random.default_rng(8), {"random": 0.0, "l1": 0.0})
    del scores["l1"][0, 0], scores["random"][1, 1]
    (found,) = compare_with_baseline(scores, "random", margin=MARGIN)
    assert found.pairs == 22
    assert "2 results without a partner" in found.note


def test_bad_questions_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"Got 'random'; there are: 'l1'"):
        compare_with_baseline({"l1": {(0, 0): 0.5}}, "random", margin=MARGIN)
    with pytest.raises(InvalidInputError, match=r"'margin' parameter .* must be positive"):
        paired_difference("x", [0.1, 0.2], margin=0.0)


@pytest.mark.parametrize("others", [0, 1, 5])
def test_a_difference_is_told_from_the_corrected_threshold_on(others: int) -> None:
    around = np.array([-0.002, 0.001, 0.003, -0.002])
    scores = {"base": dict.fromkeys(((i, 0) for i in range(4)), 0.9)}

    def family(shift: float) -> tuple[Comparison, ...]:
        rows = {f"other {k}": around for k in range(others)}
        shifted = {**rows, "row": around + shift}
        found = {name: {(i, 0): 0.9 + d[i] for i in range(4)} for name, d in shifted.items()}
        return compare_with_baseline({**scores, **found}, "base", margin=0.0001)

    needed = detectable_difference(family(0.0))
    assert needed is not None
    assert family(1.001 * needed)[-1].verdict == "better"
    assert family(0.999 * needed)[-1].verdict == "undecided"


def test_no_test_no_threshold() -> None:
    assert detectable_difference(()) is None
    scores = {"base": {(0, 0): 0.9}, "row": {(0, 0): 0.8}}
    assert detectable_difference(compare_with_baseline(scores, "base", margin=0.01)) is None
