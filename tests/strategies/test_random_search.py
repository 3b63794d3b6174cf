from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from quadratic_spaces import StaircaseLatency, chain, make_space, resnet50, spaces

from randprune.cost import Budget
from randprune.errors import InfeasibleBudgetError, InvalidInputError
from randprune.strategies import RandomSearch, Strategy, random as random_module, reachable
from randprune.strategies.feasible import WidthGrid


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_feasible(space, budget, widths, n, min_keep=0.0, round_to=1):
    assert widths.dtype == np.int64
    assert widths.shape == (n, len(space))
    assert budget.fits(space.cost(budget.metric), widths).all()
    full = space.widths
    assert (widths >= 1).all()
    assert (widths <= full).all()
    assert (widths >= min_keep * full - 1e-9).all()
    assert ((widths % round_to == 0) | (widths == full)).all()


@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("ratio", [0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.95, 1.0])
def test_resnet50_all_budgets(ratio, metric):
    space, budget = resnet50(), Budget(metric, ratio)
    strategy = RandomSearch(min_keep=0.05)
    widths = strategy.ask(space, budget, 50, generator())
    assert_feasible(space, budget, widths, 50, 0.05)


@pytest.mark.parametrize("law", ["rejection", "shifted"])
@pytest.mark.parametrize("round_to", [1, 8, 32])
def test_round_to_and_min_keep_hold(law, round_to):
    space, budget = resnet50(), Budget("macs", 0.35, 0.01)
    strategy = RandomSearch(min_keep=0.2, round_to=round_to, law=law)
    assert_feasible(space, budget, strategy.ask(space, budget, 40, generator()), 40, 0.2, round_to)


def test_groups_that_no_multiple_fits():
    # 5 < round_to: stays whole. 20: 8, 16 or whole.
    space, budget = chain(5, 20, 64, 64), Budget("macs", 0.5, 0.02)
    widths = RandomSearch(round_to=8).ask(space, budget, 200, generator())
    assert_feasible(space, budget, widths, 200, 0.1, 8)
    assert set(widths[:, 0]) == {5}
    assert set(widths[:, 1]) == {8, 16, 20}


@given(
    spaces(),
    st.floats(0.02, 1.0),
    st.sampled_from([0.0, 0.1, 0.4]),
    st.sampled_from([1, 2, 8]),
    st.sampled_from(["auto", "shifted", "rejection"]),
    st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_feasible_or_a_reason(space, ratio, min_keep, round_to, law, seed):
    budget = Budget("macs", ratio, 0.03)
    strategy = RandomSearch(min_keep, round_to, law, max_draws=2000)
    try:
        widths = strategy.ask(space, budget, 5, generator(seed))
    except InfeasibleBudgetError as error:
        assert "asked" in str(error)  # noqa: PT017
        assume(False)
    assert_feasible(space, budget, widths, 5, min_keep, round_to)


@given(spaces(max_groups=4, max_width=6), st.floats(0.05, 1.0), st.sampled_from([0.0, 0.5]))
@settings(max_examples=60, deadline=None)
def test_small_spaces_are_refused_only_where_nothing_fits(space, ratio, min_keep):
    """The shifted law finds something whenever enumeration does, and never otherwise."""
    budget = Budget("macs", ratio, 0.02)
    grid = WidthGrid.of(space, min_keep, 1)
    every = np.array(list(product(*(grid.levels(g) for g in range(len(space))))), dtype=np.int64)
    possible = budget.fits(space.cost("macs"), every).any()
    strategy = RandomSearch(min_keep, law="shifted", max_draws=4000)
    if possible:
        assert_feasible(space, budget, strategy.ask(space, budget, 1, generator()), 1, min_keep)
    else:
        with pytest.raises(InfeasibleBudgetError):
            strategy.ask(space, budget, 1, generator())


def test_rejection_is_the_uniform_law_given_the_budget():
    """Against the exact conditional probabilities of a space small enough to enumerate."""
    space, budget = chain(12, 7), Budget("macs", 0.4, 0.08)
    probability = []
    for full in (12, 7):
        edges = np.clip(np.arange(full + 1) + 0.5, 0.1 * full, full)
        mass = np.diff(np.concatenate([[0.1 * full], edges])) / (0.9 * full)
        # What rounds below the least width ceil(min_keep * full) becomes that width.
        low = int(np.ceil(0.1 * full))
        mass[low] += mass[:low].sum()
        mass[:low] = 0.0
        probability.append(mass)
    joint = np.outer(*probability)
    every = np.stack(np.meshgrid(np.arange(13), np.arange(8), indexing="ij"), axis=-1)
    joint[~budget.fits(space.cost("macs"), every)] = 0.0
    joint /= joint.sum()
    n = 40_000
    draws = RandomSearch(law="rejection").sample(space, budget, n, generator())
    counts = np.zeros_like(joint)
    np.add.at(counts, tuple(draws.widths.T), 1)
    cells = joint > 0
    assert (counts[~cells] == 0).all()
    chi_square = (((counts - n * joint) ** 2)[cells] / (n * joint)[cells]).sum()
    freedom = cells.sum() - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)
    assert 0.0 < draws.acceptance < 1.0


def test_shifted_law_treats_groups_alike_and_keeps_the_spread():
    space = resnet50()
    for ratio, least_spread in ((0.3, 0.24), (0.5, 0.22), (0.7, 0.16)):
        draws = RandomSearch(law="shifted").sample(space, Budget("macs", ratio), 4000, generator())
        kept = draws.widths / space.widths
        assert np.ptp(kept.mean(axis=0)) < 0.03
        assert kept.std(axis=0).min() > least_spread
        assert draws.acceptance > 0.999


def test_shifted_law_changes_little_where_uniform_ratios_meet_the_budget_anyway():
    """At the mean cost of uniform ratios, keep ratios stay uniform: Kolmogorov distance."""
    space = resnet50()
    widths = RandomSearch(law="shifted").ask(space, Budget("macs", 0.31), 4000, generator())
    quantiles = np.sort((widths / space.widths - 0.1) / 0.9, axis=0)
    distance = np.abs(quantiles - (np.arange(4000) + 0.5)[:, None] / 4000).max(axis=0)
    assert distance.max() < 0.05


def test_auto_names_its_law():
    space = resnet50()
    for ratio, law in ((0.3, "rejection"), (0.5, "shifted"), (0.9, "shifted")):
        budget = Budget("macs", ratio)
        resolved = RandomSearch().resolve(space, budget)
        assert resolved == RandomSearch(law=law)
        draws = RandomSearch().sample(space, budget, 20, generator())
        assert draws.law == law
        named = resolved.ask(space, budget, 20, generator())
        assert np.array_equal(draws.widths, named)


@pytest.mark.parametrize("law", ["rejection", "shifted"])
@pytest.mark.parametrize("block_bytes", [1 << 10, 1 << 15, 1 << 22])
def test_block_size_changes_nothing(law, block_bytes, monkeypatch):
    space, budget = resnet50(), Budget("macs", 0.35)
    strategy = RandomSearch(law=law)
    expected = strategy.sample(space, budget, 300, generator(7))
    monkeypatch.setattr(random_module, "_BLOCK_BYTES", block_bytes)
    got = strategy.sample(space, budget, 300, generator(7))
    assert np.array_equal(got.widths, expected.widths)
    assert got.drawn == expected.drawn


@pytest.mark.parametrize("law", ["rejection", "shifted"])
def test_smaller_requests_are_prefixes_and_cost_the_generator_the_same(law):
    space, budget = resnet50(), Budget("macs", 0.35)
    strategy = RandomSearch(law=law)
    one, many = generator(3), generator(3)
    few, all_ = strategy.ask(space, budget, 3, one), strategy.ask(space, budget, 200, many)
    assert np.array_equal(few, all_[:3])
    assert one.bit_generator.state == many.bit_generator.state
    assert not np.array_equal(strategy.ask(space, budget, 3, one), few)


def test_same_seed_in_another_process_and_with_two_threads():
    code = (
        "import hashlib, numpy as np\n"
        "from quadratic_spaces import resnet50\n"
        "from randprune.cost import Budget\n"
        "from randprune.strategies import RandomSearch\n"
        "digest = hashlib.sha256()\n"
        "for law in ('rejection', 'shifted'):\n"
        "    strategy = RandomSearch(law=law, round_to=4)\n"
        "    rng = np.random.default_rng(11)\n"
        "    digest.update(strategy.ask(resnet50(), Budget('macs', 0.35), 100, rng).tobytes())\n"
        "print(digest.hexdigest())\n"
    )
    digest = hashlib.sha256()
    for law in ("rejection", "shifted"):
        strategy = RandomSearch(law=law, round_to=4)
        digest.update(strategy.ask(resnet50(), Budget("macs", 0.35), 100, generator(11)).tobytes())
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert out.stdout.strip() == digest.hexdigest()


def test_out_of_reach_says_the_range_and_what_helps():
    space, budget = resnet50(), Budget("macs", 0.2)
    low, high = reachable(space, "macs", 0.5)
    assert high == 1.0
    assert 0.25 < low < 0.27
    with pytest.raises(
        InfeasibleBudgetError,
        match=r"No feasible widths: MACs 0\.20±0\.005 was asked for, but 0\.26-1\.00 can be "
        r"reached with min_keep 0\.5 and round_to 1\. "
        r"Lower min_keep \(now 0\.5\) to 0\.44 or less\.",
    ):
        RandomSearch(min_keep=0.5).ask(space, budget, 1, generator())
    RandomSearch(min_keep=0.44).ask(space, budget, 1, generator())


def test_out_of_reach_by_rounding_or_by_frozen_parts():
    with pytest.raises(InfeasibleBudgetError, match=r"Lower round_to \(now 48\)\.$"):
        RandomSearch(min_keep=0.0, round_to=48).ask(
            chain(64, 64, 64), Budget("macs", 0.4), 1, generator()
        )
    with pytest.raises(InfeasibleBudgetError, match=r"Lower round_to \(now 48\) and min_keep"):
        RandomSearch(round_to=48).ask(chain(64, 64, 64), Budget("macs", 0.4), 1, generator())
    frozen = chain(16, 16, constant=10_000.0)
    with pytest.raises(
        InfeasibleBudgetError,
        match=r"One channel per group still leaves 0\.7\d+, the rest cannot be cut: raise",
    ):
        RandomSearch(min_keep=0.0).ask(frozen, Budget("macs", 0.5), 1, generator())


def test_nothing_prunable():
    space = make_space([], constant=100.0)
    with pytest.raises(InfeasibleBudgetError, match="No channel group can be cut; `inspect`"):
        RandomSearch().ask(space, Budget("macs", 0.5), 1, generator())
    assert RandomSearch().ask(space, Budget("macs", 1.0), 3, generator()).shape == (3, 0)


def test_starved_is_told_apart_from_out_of_reach():
    strategy = RandomSearch(law="rejection", max_draws=3000)
    with pytest.raises(
        InfeasibleBudgetError,
        match=r"No feasible widths: MACs 0\.90±0\.005 was asked for, 3,000 draws spanned "
        r'0\.\d\d-0\.\d\d\. Within reach are 0\.01-1\.00 \(min_keep 0\.1\): use law="shifted", '
        r"or raise "
        r"max_draws \(now 3,000\)\.",
    ):
        strategy.ask(resnet50(), Budget("macs", 0.9), 1, generator())
    # The limit is per accepted row: the ones that were found are counted.
    with pytest.raises(InfeasibleBudgetError, match=r"Only \d+ of 100 feasible widths: MACs 0\.45"):
        RandomSearch(law="rejection", max_draws=150).ask(
            resnet50(), Budget("macs", 0.45), 100, generator(1)
        )


def test_tolerance_below_one_channel():
    # Costs are multiples of 1/6 of the dense one.
    space = make_space([2, 3], [(0, 1, 1.0)])
    with pytest.raises(InfeasibleBudgetError, match=r"raise the tolerance \(now 0\.01\)"):
        RandomSearch(min_keep=0.0, max_draws=500).ask(
            space, Budget("macs", 0.6, 0.01), 1, generator()
        )
    widths = RandomSearch(min_keep=0.0).ask(space, Budget("macs", 0.5, 0.01), 20, generator())
    assert set(map(tuple, widths)) == {(1, 3)}


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.9])
def test_any_cost_that_grows_with_widths(ratio):
    full = np.array([64, 128, 256, 100])
    latency = StaircaseLatency(full)
    space = make_space(full, extra={"latency": latency})
    budget = Budget("latency", ratio, 0.02)
    widths = RandomSearch(min_keep=0.05).ask(space, budget, 100, generator())
    assert_feasible(space, budget, widths, 100, 0.05)
    assert len(np.unique(widths, axis=0)) > 90


def test_arguments_are_checked():
    for arguments, text in (
        ({"min_keep": 1.5}, r"'min_keep' parameter of RandomSearch must be .* \[0, 1\]\. Got 1.5"),
        ({"round_to": 0}, "'round_to' parameter of RandomSearch must be an integer"),
        ({"round_to": 8.0}, "'round_to' parameter of RandomSearch must be an integer"),
        ({"law": "magic"}, "must be 'auto', 'rejection' or 'shifted'. Got 'magic'"),
        ({"max_draws": 0}, "'max_draws' parameter of RandomSearch"),
    ):
        with pytest.raises(InvalidInputError, match=text):
            RandomSearch(**arguments)
    space, budget = chain(8, 8), Budget("macs", 0.5)
    with pytest.raises(InvalidInputError, match="'n' parameter of ask must be an integer"):
        RandomSearch().ask(space, budget, 0, generator())
    with pytest.raises(InvalidInputError, match=r"must be a numpy Generator, such as .* Got 0"):
        RandomSearch().ask(space, budget, 1, 0)
    with pytest.raises(InvalidInputError, match="must be one of macs, params"):
        RandomSearch().ask(space, Budget("joules", 0.5), 1, generator())


def test_repr_rebuilds():
    strategy = RandomSearch(min_keep=0.25, round_to=8, law="shifted", max_draws=10)
    assert eval(repr(strategy)) == strategy
    assert isinstance(strategy, Strategy)
