"""Sequential repair: exact where it can be, better than least squares where it cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from repairable import (
    NETWORKS,
    Bare,
    Chain,
    Concat,
    Excited,
    Grouped,
    Inverted,
    NormedByGroups,
    Residual,
    Upsampling,
    Written,
    build,
    images,
    random_selection,
    traced,
    twins,
)
from torch import Tensor, nn

import randprune as rp
from randprune.errors import InvalidInputError, UnsupportedModelError
from randprune.recovery.collect import collect_moments
from randprune.recovery.inverses import Inverses
from randprune.recovery.least_squares import repair
from randprune.recovery.replay import Replay
from randprune.recovery.sequential import Options, SequentialRepair, clamped_target, images_within


def error(small: nn.Module, network: nn.Module, x: Tensor) -> float:
    """Mean squared difference of the outputs over their variance."""
    with torch.no_grad():
        dense = network(x)
        return float((small(x) - dense).square().mean() / dense.var(0).mean())


@pytest.mark.parametrize("make", NETWORKS)
def test_redundant_channels_are_cut_without_a_trace(make: Callable[[], nn.Module]) -> None:
    network = build(make)
    space = traced(network)
    selection = twins(network, space)
    x = images(64)
    small = rp.cut(network, space, selection)
    before = error(small, network, x)
    options = Options(ridge=1e-8, positions=10_000)
    assert SequentialRepair(network, space, x, options)(small, selection) is small
    assert before > 1e-2
    assert error(small, network, x) < 2e-4


@pytest.mark.parametrize(
    "make",
    [Chain, Concat, Excited, Grouped, Inverted, NormedByGroups, Residual, Upsampling],
)
def test_it_beats_least_squares_from_dense_moments(make: Callable[[], nn.Module]) -> None:
    network = build(make)
    space = traced(network)
    x, held_out = images(300), images(300, seed=1)
    moments = collect_moments(network, space, x.split(50))
    sequential = SequentialRepair(network, space, x)
    ours = theirs = 0.0
    for seed in range(3):
        selection = random_selection(space, 0.7, seed)
        small = repair(
            rp.cut(network, space, selection), network, space, selection, Inverses(moments)
        )
        theirs += error(small, network, held_out)
        ours += error(sequential(small, selection), network, held_out)
    assert ours < theirs


def test_residual_and_clamp_awareness_pay() -> None:
    network = build(Residual)
    space = traced(network)
    x, held_out = images(300), images(300, seed=1)
    errors = {}
    for name, options in {
        "all": Options(),
        "linear": Options(rounds=0),
        "layerwise": Options(rounds=0, residual=False),
    }.items():
        sequential = SequentialRepair(network, space, x, options)
        errors[name] = 0.0
        for seed in range(3):
            selection = random_selection(space, 0.6, seed)
            small = sequential(rp.cut(network, space, selection), selection)
            errors[name] += error(small, network, held_out)
    assert errors["all"] < errors["linear"] < errors["layerwise"]


def test_the_last_layer_of_a_block_aims_at_the_sum() -> None:
    """The weights are those of a solver whose targets are the dense sum minus the shortcut."""
    network = build(Residual)
    space = traced(network)
    selection = random_selection(space, 0.6)
    x = images(100)
    small = rp.cut(network, space, selection)
    options = Options(ridge=0.0, rounds=0, positions=10_000)
    SequentialRepair(network, space, x, options)(small, selection)
    stream = selection[[g.name for g in space.groups].index("stem")]
    with torch.no_grad():

        def blocks(net: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
            """Input of the first block's last layer, the shortcut, and the sum."""
            s = F.relu(net.stem(x))
            h = F.relu(net.norms[0](net.first[0](s)))
            return h, s, net.ends[0](net.second[0](h)) + s

        h, shortcut, got = blocks(small)
        _, _, wanted = blocks(network)
        target = (wanted[:, stream] - shortcut).permute(0, 2, 3, 1).flatten(0, 2).double()
        rows = F.unfold(h, 3, padding=1).transpose(1, 2).flatten(0, 1).double()
        design = torch.cat([rows, torch.ones(len(rows), 1).double()], dim=1)
        fitted = design @ torch.linalg.lstsq(design, target, driver="gelsd").solution
        ours = (got - shortcut).permute(0, 2, 3, 1).flatten(0, 2).double()
    torch.testing.assert_close(ours, fitted, rtol=0, atol=2e-3)


@pytest.mark.parametrize("seed", range(5))
def test_operators_in_place_change_nothing(seed: int) -> None:
    """The error that is left equals that of the same network written without them."""
    x, held_out = images(100), images(100, seed=1)
    errors = []
    for in_place in (True, False):
        network = build(lambda in_place=in_place: Written(in_place), seed)
        space = traced(network)
        selection = random_selection(space, 0.6, seed)
        small = rp.cut(network, space, selection)
        SequentialRepair(network, space, x)(small, selection)
        errors.append(error(small, network, held_out))
    assert errors[0] == pytest.approx(errors[1], rel=1e-5)


def test_rows_that_the_clamp_swallows_do_not_count() -> None:
    goal = torch.tensor([-2.0, -2.0, 1.0, 7.0, 7.0])
    predicted = torch.tensor([-5.0, 1.0, -1.0, 9.0, 5.0])
    relu = clamped_target(goal, predicted, 0.0, float("inf"))
    assert relu.tolist() == [-5.0, 0.0, 1.0, 7.0, 7.0]
    relu6 = clamped_target(goal, predicted, 0.0, 6.0)
    assert relu6.tolist() == [-5.0, 0.0, 1.0, 9.0, 6.0]


def test_layers_before_any_cut_and_the_last_layer_are_left_alone() -> None:
    network = build(Residual)
    space = traced(network)
    kept = list(space.dense.kept)
    place = [g.name for g in space.groups].index("first.1")
    kept[place] = kept[place][:6]
    selection = rp.Selection(tuple(kept), space.fingerprint)
    small = rp.cut(network, space, selection)
    SequentialRepair(network, space, images(40))(small, selection)
    changed = {
        name
        for name, tensor in small.state_dict().items()
        if tensor.shape != network.state_dict()[name].shape
        or not torch.equal(tensor, network.state_dict()[name])
    }
    assert not any(n.startswith(("stem", "first.0", "second.0", "shortcut", "head")) for n in changed)  # fmt: skip  # noqa: E501
    assert {"second.1.weight", "first.2.weight", "second.2.weight"} <= changed


def test_nothing_cut_means_nothing_changed() -> None:
    network = build(Chain)
    space = traced(network)
    small = rp.cut(network, space, space.dense)
    SequentialRepair(network, space, images(8))(small, space.dense)
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])


def test_the_dense_network_and_the_flags_stay_and_results_repeat() -> None:
    network = build(Chain)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    space = traced(network)
    selection = random_selection(space)
    x = images(40)
    first, second = (
        SequentialRepair(network, space, x, Options(positions=4))(
            rp.cut(network, space, selection).train(), selection
        )
        for _ in range(2)
    )
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert first.training
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])


def test_biases_gained_from_least_squares_are_refitted() -> None:
    network = build(Bare)
    space = traced(network)
    selection = random_selection(space, 0.7)
    x = images(300)
    moments = collect_moments(network, space, [x])
    small = repair(rp.cut(network, space, selection), network, space, selection, Inverses(moments))
    assert small.b.bias is not None
    before = error(small, network, x)
    SequentialRepair(network, space, x)(small, selection)
    assert error(small, network, x) < before


def test_emitted_networks_are_repaired_too() -> None:
    network = build(Chain)
    space = traced(network, as_graph=True)
    selection = twins(network, space)
    x = images(64)
    small = rp.cut(network, space, selection)
    SequentialRepair(network, space, x, Options(ridge=1e-8))(small, selection)
    assert error(small, network, x) < 1e-5


def test_a_network_of_another_form_is_refused() -> None:
    network = build(Chain)
    space = traced(network)
    with pytest.raises(UnsupportedModelError, match="graphs differ"):
        SequentialRepair(network, space, images(8))(build(Bare), space.dense)


def test_bad_options_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="'ridge' parameter"):
        Options(ridge=-1.0)
    with pytest.raises(InvalidInputError, match="at least 1 position"):
        Options(positions=0)


def test_images_within_a_limit() -> None:
    replay = Replay(build(Chain), (images(1),))
    # Largest moment: 8 x 8 maps of 8 channels before and behind one operation, in two networks.
    one = images_within(replay, 1)
    assert 2 * one - 2 <= images_within(replay, 2) <= 2 * one + 2
    assert one < (1 << 20) / (4 * 8 * 8 * 8 * 2)
    assert images_within(replay, 0) == 1
