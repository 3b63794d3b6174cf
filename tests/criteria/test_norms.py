"""Filter norms and random scores against a brute-force count on a three-layer network."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

import randprune as rp
from randprune.criteria.base import criteria
from randprune.criteria.norms import L1, L2
from randprune.criteria.random import Random


class ThreeLayers(nn.Module):
    """Two coupled convolutions (a residual), a grouped one, and a linear layer after a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 1)
        self.c = nn.Conv2d(6, 4, 1, groups=2)
        self.f = nn.Linear(4 * 16, 3)

    def forward(self, x):
        y = self.a(x)
        y = y + self.b(y.relu())
        return self.f(self.c(y).relu().flatten(1))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return ThreeLayers()


@pytest.fixture(scope="module")
def space(net):
    return rp.trace(net, torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize("order", [1, 2])
def test_sum_of_the_norms_of_all_coupled_filters(net, space, order):
    scores = rp.score(net, space, f"l{order}")
    weights = {name: p.detach().double().numpy() for name, p in net.named_parameters()}
    for group, score in zip(space.groups, scores, strict=True):
        assert score.dtype == torch.float32
        assert score.shape == (group.width,)
        for channel in range(group.width):
            wanted = 0.0
            for slot in group.slots:
                if slot.role == "out":
                    rows = np.take(weights[slot.tensor], slot.index[channel], axis=slot.dim)
                    wanted += (np.abs(rows) ** order).sum() ** (1 / order)
            assert float(score[channel]) == pytest.approx(wanted, rel=1e-5)
    coupled = {slot.tensor for slot in space.group("a").with_role("out")}
    assert coupled == {"a.weight", "b.weight"}


def test_of_one_convolution_by_hand(net, space):
    """The grouped layer: channel j has one filter in either half."""
    norms = net.c.weight.detach().abs().sum((1, 2, 3))
    assert torch.allclose(rp.score(net, space, "l1")[1], norms[:2] + norms[2:])


def test_filters_of_transposed_convolutions_lie_on_their_second_axis():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 5, 1), nn.ConvTranspose2d(5, 4, 2), nn.Conv2d(4, 2, 1))
    space = rp.trace(net, torch.zeros(1, 2, 4, 4))
    scores = dict(zip((g.name for g in space.groups), rp.score(net, space, "l2"), strict=True))
    assert torch.allclose(scores["1"], net[1].weight.detach().pow(2).sum((0, 2, 3)).sqrt())


def test_scaling_a_filter_scales_its_score(net, space):
    louder = copy.deepcopy(net)
    with torch.no_grad():
        louder.c.weight[[1, 3]] *= 3
    before, after = rp.score(net, space, "l1")[1], rp.score(louder, space, "l1")[1]
    assert torch.allclose(after / before, torch.tensor([1.0, 3.0]))


def test_half_precision_is_summed_in_single(net, space):
    half = copy.deepcopy(net).half()
    scores = rp.score(half, space, "l1")
    assert all(s.dtype == torch.float32 for s in scores)
    assert torch.allclose(scores[0], rp.score(net, space, "l1")[0], rtol=1e-2)


def test_random_scores_come_from_the_seed_alone(net, space):
    first, again = (rp.score(net, space, "random", seed=3) for _ in range(2))
    other = rp.score(net, space, "random", seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert all(bool(((s >= 0) & (s < 1)).all()) for s in first)
    state = torch.get_rng_state()
    rp.score(net, space, Random())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_network_stays_as_it_was(net, space):
    net.train()
    before = {name: p.clone() for name, p in net.state_dict().items()}
    for name in ("l1", "l2", "random"):
        rp.score(net, space, name)
    assert net.training
    assert all(torch.equal(p, before[name]) for name, p in net.state_dict().items())


def test_names_and_representations():
    assert {"l1", "l2", "random"} <= set(criteria.names())
    assert isinstance(criteria.create("l1"), L1)
    assert repr(L2()) == "L2()"
    assert L1() == eval("L1()")
    assert L1().needs == frozenset({"weights"})


@dataclass(frozen=True)
class Planted:
    """A criterion from outside, right or wrong as told."""

    values: object
    name: str = "planted"
    needs: frozenset = field(default_factory=frozenset)

    def scores(self, context):
        return self.values(context)


class TestPlugIns:
    def test_an_object_is_taken_as_it_is(self, net, space):
        planted = Planted(lambda c: [torch.arange(float(g.width)) for g in c.space.groups])
        scores = rp.score(net, space, planted)
        selection = rp.select(space, scores, [2, 1])
        # The grouped layer ties the two halves of "a": three channels of two filters each.
        assert [(group.name, group.width) for group in space.groups] == [("a", 3), ("c", 2)]
        assert [kept.tolist() for kept in selection] == [[1, 2], [1]]

    def test_unknown_name(self, net, space):
        with pytest.raises(rp.InvalidInputError, match="No criterion is called 'l3'"):
            rp.score(net, space, "l3")

    def test_missing_data_is_named(self, net, space):
        greedy = Planted(lambda c: [], needs=frozenset({"gradients"}))
        with pytest.raises(rp.DataError, match="'planted' needs gradients: give `data`"):
            rp.score(net, space, greedy)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (lambda c: [torch.ones(3)], "gave 1 scores for 2 groups"),
            (lambda c: [torch.ones(99)] * 2, r"scores of shape \(99,\)"),
            (
                lambda c: [torch.full((g.width,), float("nan")) for g in c.space.groups],
                "finite: False",
            ),
        ],
    )
    def test_wrong_scores_are_refused(self, net, space, values, message):
        with pytest.raises(rp.InvalidInputError, match=message):
            rp.score(net, space, Planted(values))

    def test_batches_reach_the_criterion_and_can_be_walked_again(self, net, space):
        seen = []

        def values(context):
            for _ in range(2):
                seen.append([len(images) for images, _ in context.batches()])
            return [torch.ones(g.width) for g in context.space.groups]

        planted = Planted(values, needs=frozenset({"activations"}))
        data = (torch.zeros(5, 2, 4, 4), torch.zeros(5, dtype=torch.int64))
        rp.score(net, space, planted, data=data, batch_size=2)
        assert seen == [[2, 2, 1], [2, 2, 1]]
        rp.score(net, space, planted, data=iter([data]))
        assert seen[2:] == [[5], [5]]
        with pytest.raises(rp.DataError, match="must be a split, a pair of tensors or an iterable"):
            rp.score(net, space, planted, data=3)
