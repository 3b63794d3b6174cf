"""Recoveries by name: chains, what they need, and clear refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from repairable import Bare, Chain, build, images, random_selection, traced

import randprune as rp
from randprune.errors import DataError, InvalidInputError
from randprune.recovery import DenseStatistics, Recovery, Sequential, parse, recover, recoveries
from randprune.recovery.batch_norm import recalibrate
from randprune.recovery.collect import collect_moments
from randprune.recovery.inverses import Inverses
from randprune.recovery.least_squares import repair
from randprune.recovery.sequential import Options, SequentialRepair


def test_names_are_chains_of_steps() -> None:
    assert parse("none") == parse("") == ()
    assert [step.name for step in parse("least_squares+bn")] == ["least_squares", "bn"]
    assert [step.name for step in parse("sequential + bn")] == ["sequential", "bn"]
    assert recoveries.names() == (
        "bn", "bn_closed_form", "distill", "least_squares", "sequential",
        "sequential_draft",
    )  # fmt: skip
    for step in parse("+".join(recoveries.names())):
        assert isinstance(step, Recovery)
        assert step.needs <= {"moments", "data"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("least_square", "Did you mean 'least_squares'"),
        ("bn+none", "No recovery is called 'none'"),
        ("bn+bn", "chain of different steps"),
    ],
)
def test_unknown_and_repeated_steps_are_refused(name: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse(name)


def test_a_chain_is_its_steps_one_after_the_other() -> None:
    network = build(Chain)
    space = traced(network)
    selection = random_selection(space)
    x = images(40)
    small = recover(
        rp.cut(network, space, selection), network, space, selection, "least_squares+bn", x,
        batch_size=10,
    )  # fmt: skip
    expected = rp.cut(network, space, selection)
    moments = collect_moments(network, space, x.split(10))
    repair(expected, network, space, selection, Inverses(moments))
    recalibrate(expected, x.split(10))
    for name, tensor in expected.state_dict().items():
        assert torch.equal(small.state_dict()[name], tensor)


def test_sequential_takes_the_first_images() -> None:
    network = build(Chain)
    space = traced(network)
    selection = random_selection(space)
    x = images(40)
    batches = [(part, torch.zeros(10)) for part in x.split(10)]
    options = Options(positions=4)
    small = recover(
        rp.cut(network, space, selection), network, space, selection,
        Sequential(images=24, options=options), batches,
    )  # fmt: skip
    expected = SequentialRepair(network, space, x[:24], options)(
        rp.cut(network, space, selection), selection
    )
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], tensor)


def test_passes_are_shared() -> None:
    network = build(Chain)
    space = traced(network)
    x = images(12)

    class Counted:
        passes = 0

        def batches(self, batch_size: int) -> Any:
            Counted.passes += 1
            return zip(x.split(batch_size), x.split(batch_size), strict=True)

    shared = DenseStatistics(network, space)
    for seed in range(3):
        selection = random_selection(space, seed=seed)
        small = rp.cut(network, space, selection)
        recover(small, network, space, selection, "least_squares", Counted(), shared=shared)
    assert Counted.passes == 1
    small = rp.cut(network, space, selection)
    recover(small, network, space, selection, "least_squares+bn_closed_form", None, shared=shared)


def test_none_changes_nothing() -> None:
    network = build(Chain)
    space = traced(network)
    selection = random_selection(space)
    small = recover(rp.cut(network, space, selection), network, space, selection, "none")
    rp.verify(network, small, space, selection, images(1))


@pytest.mark.parametrize("name", ["bn", "least_squares", "sequential"])
def test_missing_and_strange_data_are_refused(name: str) -> None:
    network = build(Chain)
    space = traced(network)
    small = rp.cut(network, space, space.dense)
    with pytest.raises(DataError, match="give `data`"):
        recover(small, network, space, space.dense, name)
    with pytest.raises(DataError, match="Got int instead"):
        recover(small, network, space, space.dense, name, 7)
    with pytest.raises(DataError, match="empty"):
        recover(small, network, space, space.dense, name, [])


def test_a_selection_of_another_space_is_refused() -> None:
    network, other = build(Chain), build(Bare)
    space, other_space = traced(network), traced(other)
    small = rp.cut(network, space, space.dense)
    with pytest.raises(InvalidInputError):
        recover(small, network, space, other_space.dense, "bn", images(4))
