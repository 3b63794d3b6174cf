"""What is known of a dense network is made once, and belongs to that network alone."""

from __future__ import annotations

import pytest
import torch
from repairable import Bare, Chain, build, images, random_selection, traced

import randprune as rp
from randprune.errors import InvalidInputError
from randprune.recovery import DenseStatistics, recover


def test_everything_is_made_once() -> None:
    network = build(Chain)
    statistics = DenseStatistics(network, traced(network))
    assert statistics.moments is None
    moments = statistics.collect([images(8)])
    assert statistics.moments is moments
    assert statistics.copy is statistics.copy
    assert statistics.graph() is statistics.graph(8)
    assert statistics.tensors is statistics.tensors
    assert statistics.reference is statistics.reference
    assert statistics.eliminations() is statistics.eliminations()
    assert statistics.eliminations(1e-2) is not statistics.eliminations()


def test_criteria_and_recoveries_share_the_same_moments() -> None:
    network = build(Chain)
    space = traced(network)
    x = images(8)
    shared = DenseStatistics(network, space)
    rp.score(network, space, "reconstruction", (x, torch.zeros(8)), shared=shared)
    selection = random_selection(space)
    small = rp.cut(network, space, selection)
    recover(small, network, space, selection, "least_squares", None, shared=shared)
    assert shared.moments is not None
    assert shared.moments.images == 8


def test_moments_that_are_known_are_taken() -> None:
    network = build(Chain)
    space = traced(network)
    moments = DenseStatistics(network, space).collect([images(8)])
    assert DenseStatistics(network, space, moments).moments is moments


def test_eliminations_need_moments() -> None:
    network = build(Chain)
    with pytest.raises(
        InvalidInputError, match=r"none were collected yet. Call collect\(batches\)"
    ):
        DenseStatistics(network, traced(network)).eliminations()


def test_statistics_of_another_network_are_refused() -> None:
    network, other = build(Chain), build(Bare)
    space, other_space = traced(network), traced(other)
    small = rp.cut(network, space, space.dense)
    with pytest.raises(InvalidInputError, match="statistics of another network"):
        recover(small, network, space, space.dense, "none",
                shared=DenseStatistics(other, other_space))  # fmt: skip
    shared = DenseStatistics(network, space)
    recover(small, network, space, space.dense, "none", shared=shared)
    with torch.no_grad():
        network.head.bias.add_(1.0)
    with pytest.raises(InvalidInputError, match="before its weights were changed"):
        recover(small, network, space, space.dense, "none", shared=shared)


def test_a_dict_is_refused() -> None:
    network = build(Chain)
    with pytest.raises(InvalidInputError, match=r"must be a DenseStatistics.*Got dict instead"):
        rp.score(network, traced(network), "l1", shared={})  # type: ignore[arg-type]
