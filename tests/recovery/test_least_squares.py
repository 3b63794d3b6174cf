"""Least squares from moments: against a solver on the rows, and exact where cuts are redundant."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from repairable import (
    NETWORKS,
    Bare,
    Chain,
    Concat,
    Grouped,
    build,
    images,
    random_selection,
    traced,
    twins,
)
from torch import Tensor, nn

import randprune as rp
from randprune.errors import InvalidInputError
from randprune.graph.layers import Geometry
from randprune.recovery.collect import collect_moments
from randprune.recovery.inverses import Inverses
from randprune.recovery.least_squares import refit, repair
from randprune.recovery.replay import Layer
from randprune.recovery.statistics import Moments, SiteMoments
from randprune.space import Selection

EVERYWHERE = 10_000


def outputs(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = network(x)
    return result


@pytest.mark.parametrize("full_columns", [10_000, 1])
@pytest.mark.parametrize("make", NETWORKS)
def test_redundant_channels_are_cut_without_a_trace(
    make: Callable[[], nn.Module], full_columns: int
) -> None:
    """With a copy left of every channel cut, the repaired network is the dense one.

    Also with moments between channels only: a copy is a copy at every kernel position.
    """
    network = build(make)
    space = traced(network)
    selection = twins(network, space)
    x = images(64)
    moments = collect_moments(network, space, [x], full_columns=full_columns)
    small = rp.cut(network, space, selection)
    before = float((outputs(small, x) - outputs(network, x)).abs().max())
    assert repair(small, network, space, selection, Inverses(moments, 0.0)) is small
    scale = float(outputs(network, x).std())
    assert before > 0.03 * scale
    torch.testing.assert_close(outputs(small, x), outputs(network, x), rtol=0, atol=2e-3 * scale)


def test_emitted_networks_are_repaired_too() -> None:
    network = build(Chain)
    space = traced(network, as_graph=True)
    selection = twins(network, space)
    x = images(64)
    moments = collect_moments(network, space, [x])
    small = rp.cut(network, space, selection)
    assert isinstance(small, torch.fx.GraphModule)
    repair(small, network, space, selection, Inverses(moments, 0.0))
    torch.testing.assert_close(outputs(small, x), outputs(network, x), rtol=0, atol=1e-3)


def rows_of_b(network: nn.Module, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        a = F.relu(network.a_norm(network.a(x)))
    columns = F.unfold(a, 3, padding=1, stride=2)
    return columns.transpose(1, 2).reshape(-1, columns.shape[1]).double().numpy()


def test_weights_and_bias_are_those_of_a_solver_on_the_rows() -> None:
    network = build(Chain)
    space = traced(network)
    selection = random_selection(space)
    x = images(40)
    moments = collect_moments(network, space, [x], positions=EVERYWHERE)
    small = rp.cut(network, space, selection)
    mean_before = small.b_norm.running_mean.clone()
    repair(small, network, space, selection, Inverses(moments, 0.0))
    kept = {group.name: selection[i] for i, group in enumerate(space.groups)}
    rows = rows_of_b(network, x)
    target = rows @ network.b.weight.detach().double().flatten(1).numpy().T
    columns = (kept["a"][:, None] * 9 + np.arange(9)).reshape(-1)
    design = np.concatenate([rows[:, columns], np.ones((len(rows), 1))], axis=1)
    solution = np.linalg.lstsq(design, target[:, kept["b"]], rcond=None)[0]
    got = small.b.weight.detach().double().flatten(1).numpy().T
    np.testing.assert_allclose(got, solution[:-1], rtol=0, atol=2e-3)
    # No bias in the layer: the norm behind it takes the constant.
    shift = (mean_before - small.b_norm.running_mean).double().numpy()
    np.testing.assert_allclose(shift, solution[-1], rtol=0, atol=2e-3)
    assert small.b.bias is None


@pytest.mark.parametrize("centred", [True, False])
def test_a_refit_has_a_free_constant_or_none_at_all(centred: bool) -> None:
    """Against a solver on rows whose mean is far from zero, where the two differ widely."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6)) + np.arange(2.0, 8.0)
    weight = rng.normal(size=(3, 6))
    site = SiteMoments(
        torch.from_numpy(rows.mean(0))[None],
        torch.from_numpy(np.cov(rows.T, bias=True)).float()[None],
        len(rows),
        per_channel=False,
    )
    layer = Layer("w", "", None, "w", Geometry())
    moments = Moments({"w": layer}, {"w": site}, {"w": (3, 6)}, 400, "")
    kept = np.array([0, 2, 5])
    new, shift = refit(
        Inverses(moments, 0.0), layer, torch.from_numpy(weight), kept, centred=centred
    )
    constant = np.ones((len(rows), 1)) if centred else np.zeros((len(rows), 0))
    design = np.concatenate([rows[:, kept], constant], axis=1)
    solution = np.linalg.lstsq(design, rows @ weight.T, rcond=None)[0]
    np.testing.assert_allclose(new.numpy().T, solution[:3], rtol=0, atol=1e-5)
    wanted = solution[3] if centred else np.zeros(3)
    np.testing.assert_allclose(shift.numpy(), wanted, rtol=0, atol=1e-4)


def test_a_layer_with_neither_bias_nor_norm_gains_a_bias() -> None:
    network = build(Bare)
    space = traced(network)
    selection = random_selection(space)
    x = images(40)
    moments = collect_moments(network, space, [x], positions=EVERYWHERE)
    small = rp.cut(network, space, selection)
    repair(small, network, space, selection, Inverses(moments))
    assert isinstance(small.b.bias, nn.Parameter)
    with torch.no_grad():
        dense = network.b(F.relu(network.a(x)))
        kept = selection[[group.name for group in space.groups].index("b")]
        error = small.b(F.relu(small.a(x))) - dense[:, kept]
    assert float(error.mean((0, 2, 3)).abs().max()) < 1e-4
    again = repair(small, network, space, selection, Inverses(moments))
    assert float(again.b.bias.detach().abs().max()) > 0.0


@pytest.mark.parametrize("make", [Chain, Concat, Grouped])
def test_repair_lowers_the_error_at_the_outputs(make: Callable[[], nn.Module]) -> None:
    network = build(make)
    space = traced(network)
    x = images(200)
    moments = collect_moments(network, space, x.split(50))
    for seed in range(3):
        selection = random_selection(space, 0.7, seed)
        small = rp.cut(network, space, selection)
        dense = outputs(network, x)
        before = float((outputs(small, x) - dense).square().mean())
        repair(small, network, space, selection, Inverses(moments))
        assert float((outputs(small, x) - dense).square().mean()) < 0.5 * before


def test_nothing_cut_means_nothing_changed() -> None:
    network = build(Chain)
    space = traced(network)
    moments = collect_moments(network, space, [images(8)])
    small = rp.cut(network, space, space.dense)
    repair(small, network, space, space.dense, Inverses(moments))
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])


def test_the_dense_network_stays_as_it_is() -> None:
    network = build(Chain)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    space = traced(network)
    selection = random_selection(space)
    moments = collect_moments(network, space, [images(8)])
    repair(rp.cut(network, space, selection), network, space, selection, Inverses(moments))
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


def test_a_strong_ridge_keeps_the_weights() -> None:
    network = build(Chain)
    space = traced(network)
    selection = random_selection(space)
    moments = collect_moments(network, space, [images(8)])
    cut = rp.cut(network, space, selection)
    small = rp.cut(network, space, selection)
    repair(small, network, space, selection, Inverses(moments, 1e9))
    torch.testing.assert_close(small.b.weight, cut.b.weight, rtol=0, atol=1e-6)


def test_moments_of_another_network_and_bad_ridges_are_refused() -> None:
    network = build(Chain)
    space = traced(network)
    moments = collect_moments(network, space, [images(8)])
    other = build(Bare)
    other_space = traced(other)
    small = rp.cut(other, other_space, other_space.dense)
    with pytest.raises(InvalidInputError, match="Collect them on the network that is cut"):
        repair(small, other, other_space, other_space.dense, Inverses(moments))
    selection = Selection(space.dense.kept, space.fingerprint)
    for ridge in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidInputError, match="'ridge' parameter"):
            repair(rp.cut(network, space, selection), network, space, selection, Inverses(moments, ridge))  # fmt: skip  # noqa: E501
