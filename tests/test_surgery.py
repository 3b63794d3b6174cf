"""select, cut and verify: what is right passes, and every kind of wrong cut is caught."""

from __future__ import annotations

import copy
import dataclasses
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import randprune as rp
from randprune.space import ChannelGroup, Selection, Slot, Space


class Residual(nn.Module):
    """Two groups: the residual stream (8 channels, three layers) and the block's inside (6)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 6, 3, padding=1)
        self.inner_norm = nn.BatchNorm2d(6)
        self.outer = nn.Conv2d(6, 8, 1)
        self.end = nn.Linear(8, 4)

    def forward(self, x):
        y = F.relu(self.norm(self.stem(x)))
        y = F.relu(y + self.outer(F.relu(self.inner_norm(self.inner(y)))))
        return self.end(y.mean((2, 3)))


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
STREAM, INNER = 0, 1


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Residual()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if "norm" in name and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return net


@pytest.fixture
def space(net):
    return rp.trace(net, IMAGES)


@pytest.fixture
def selection(space):
    assert [(g.name, g.width) for g in space.groups] == [("stem", 8), ("inner", 6)]
    return Selection((np.array([0, 2, 3, 6]), np.array([1, 4])), space.fingerprint)


def verify(net, small, space, selection):
    return rp.verify(net, small, space, selection, IMAGES)


class TestSelect:
    def test_keeps_the_highest_scores_sorted_by_position(self, space):
        scores = [torch.tensor([3.0, 9, 1, 8, 2, 7, 0, 5]), np.array([0.5, 3, 2, 1, 9, -4])]
        selection = rp.select(space, scores, [3, 2])
        assert [kept.tolist() for kept in selection] == [[1, 3, 5], [1, 4]]
        assert all(kept.dtype == np.int64 for kept in selection)
        assert selection.fingerprint == space.fingerprint

    def test_ties_go_to_the_lower_number(self, space):
        selection = rp.select(space, [torch.ones(8), torch.zeros(6)], [3, 4])
        assert [kept.tolist() for kept in selection] == [[0, 1, 2], [0, 1, 2, 3]]

    def test_full_width_is_everything(self, space):
        scores = [torch.rand(8), torch.rand(6)]
        assert rp.select(space, scores, space.widths) == space.dense

    def test_smaller_widths_are_nested_in_larger_ones(self, space):
        scores = [torch.rand(8), torch.rand(6)]
        small, large = (rp.select(space, scores, [k, k]) for k in (2, 5))
        assert all(set(a) <= set(b) for a, b in zip(small, large, strict=True))

    @pytest.mark.parametrize(
        ("scores", "message"),
        [
            ([torch.ones(8)], "one entry for each of the 2 groups. Got 1"),
            ([torch.ones(8), torch.ones(5)], "'inner' must be 6 finite numbers. Got shape (5,)"),
            ([torch.ones(8), torch.full((6,), torch.nan)], "6 not finite"),
            ([torch.ones(8, 1), torch.ones(6)], "'stem' must be 8 finite numbers"),
        ],
    )
    def test_wrong_scores(self, space, scores, message):
        with pytest.raises(rp.InvalidInputError, match=re.escape(message)):
            rp.select(space, scores, [2, 2])

    @pytest.mark.parametrize("widths", [[0, 2], [9, 2], [2], [2.0, 2.0]])
    def test_wrong_widths(self, space, widths):
        with pytest.raises(rp.InvalidInputError):
            rp.select(space, [torch.ones(8), torch.ones(6)], widths)


class TestCut:
    def test_tensors_are_the_kept_parts(self, net, space, selection):
        small = rp.cut(net, space, selection)
        stream, inner = selection
        assert torch.equal(small.stem.weight, net.stem.weight[stream])
        assert torch.equal(small.norm.running_var, net.norm.running_var[stream])
        assert torch.equal(small.inner.weight, net.inner.weight[inner][:, stream])
        assert torch.equal(small.outer.weight, net.outer.weight[stream][:, inner])
        assert torch.equal(small.outer.bias, net.outer.bias[stream])
        assert torch.equal(small.end.weight, net.end.weight[:, stream])
        assert torch.equal(small.end.bias, net.end.bias)

    def test_attributes_follow(self, net, space, selection):
        small = rp.cut(net, space, selection)
        assert (small.inner.in_channels, small.inner.out_channels) == (4, 2)
        assert small.norm.num_features == 4
        assert (small.end.in_features, small.end.out_features) == (4, 4)
        assert repr(small.outer) == "Conv2d(2, 4, kernel_size=(1, 1), stride=(1, 1))"

    def test_the_original_shares_no_memory_and_stays(self, net, space, selection):
        before = copy.deepcopy(net.state_dict())
        small = rp.cut(net, space, selection)
        with torch.no_grad():
            for parameter in small.parameters():
                parameter.fill_(7.0)
        assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
        assert type(small) is Residual

    def test_keeping_everything_is_the_network_itself(self, net, space):
        small = rp.cut(net, space, space.dense)
        assert torch.equal(small.eval()(IMAGES), net.eval()(IMAGES))
        assert small is not net

    def test_modes_and_gradient_flags_are_kept(self, net, space, selection):
        net.inner.weight.requires_grad_(False)
        net.norm.eval()
        small = rp.cut(net, space, selection)
        assert not small.inner.weight.requires_grad
        assert small.stem.weight.requires_grad
        assert not small.norm.training
        assert small.inner_norm.training

    def test_a_cut_network_can_be_cut_again(self, net, space, selection):
        small = rp.cut(net, space, selection)
        again = rp.trace(small, IMAGES)
        assert again.widths.tolist() == [4, 2]
        kept = Selection((np.array([1, 3]), np.array([0])), again.fingerprint)
        smaller = rp.cut(small, again, kept)
        assert torch.equal(smaller.stem.weight, net.stem.weight[[2, 6]])
        verify(small, smaller, again, kept)

    def test_cuts_of_two_groups_commute(self, net, space, selection):
        dense = space.dense
        first = Selection((selection[STREAM], dense[INNER]))
        one = rp.cut(net, space, first)
        rest = Selection((np.arange(4), selection[INNER]))
        two = rp.cut(one, rp.trace(one, IMAGES), rest)
        at_once = rp.cut(net, space, selection)
        assert all(torch.equal(t, at_once.state_dict()[n]) for n, t in two.state_dict().items())

    def test_of_another_space(self, net, space, selection):
        stranger = dataclasses.replace(selection, fingerprint="0123456789abcdef")
        with pytest.raises(rp.InvalidInputError, match="Trace the same network again"):
            rp.cut(net, space, stranger)

    def test_of_another_network(self, space, selection):
        with pytest.raises(rp.InvalidInputError, match=r"no tensor called 'stem\.weight'"):
            rp.cut(nn.Sequential(nn.Conv2d(3, 8, 3)), space, selection)

    def test_of_a_narrower_network(self, net, space, selection):
        small = rp.cut(net, space, selection)
        with pytest.raises(rp.InvalidInputError, match="traced from a wider network"):
            rp.cut(small, space, selection)


class TestVerifyPasses:
    def test_on_random_selections(self, net, space):
        rng = np.random.default_rng(0)
        for _ in range(5):
            kept = tuple(np.sort(rng.permutation(w)[: rng.integers(1, w + 1)]) for w in (8, 6))
            selection = Selection(kept, space.fingerprint)
            assert verify(net, rp.cut(net, space, selection), space, selection) < 1e-10

    def test_whatever_the_example_holds(self, net, space, selection):
        """Its numbers are drawn anew: an image of zeros proves as much."""
        small = rp.cut(net, space, selection)
        assert rp.verify(net, small, space, selection, torch.zeros(2, 3, 8, 8)) < 1e-10

    def test_leaves_both_networks_alone(self, net, space, selection):
        small = rp.cut(net, space, selection)
        before = [copy.deepcopy(m.state_dict()) for m in (net, small)]
        verify(net, small, space, selection)
        for module, state in zip((net, small), before, strict=True):
            assert all(torch.equal(t, state[n]) for n, t in module.state_dict().items())
            assert module.training

    def test_with_statistics_that_are_still_the_defaults(self, space, selection):
        """Means of 0 and variances of 1 cannot hide a wrong channel: they are randomised."""
        fresh = Residual()
        assert verify(fresh, rp.cut(fresh, space, selection), space, selection) < 1e-10


class TestVerifyFails:
    def fails(self, net, small, space, selection, match=""):
        with pytest.raises(rp.VerificationError, match=match):
            verify(net, small, space, selection)

    @pytest.mark.parametrize("group", [STREAM, INNER])
    def test_one_wrong_channel(self, net, space, selection, group):
        kept = list(selection.kept)
        gone = np.setdiff1d(np.arange(space.groups[group].width), kept[group])
        kept[group] = np.sort(np.append(kept[group][1:], gone[0]))
        small = rp.cut(net, space, Selection(tuple(kept)))
        self.fails(net, small, space, selection, "does not hold the selected channels")

    def test_one_channel_too_many(self, net, space, selection):
        kept = (np.array([0, 2, 3, 6, 7]), selection[INNER])
        small = rp.cut(net, space, Selection(kept))
        self.fails(net, small, space, selection, "has shape .* the selection needs")

    @pytest.mark.parametrize(
        "name",
        ["norm.running_mean", "norm.running_var", "norm.weight", "inner_norm.bias"],
    )
    def test_swapped_channels_of_one_vector(self, net, space, selection, name):
        small = rp.cut(net, space, selection)
        with torch.no_grad():
            tensor = small.state_dict()[name]
            tensor.copy_(tensor.flip(0))
        self.fails(net, small, space, selection, re.escape(name))

    @pytest.mark.parametrize("name", ["stem.weight", "inner.weight", "outer.bias", "end.weight"])
    def test_one_number_changed_in_its_last_bit(self, net, space, selection, name):
        small = rp.cut(net, space, selection)
        with torch.no_grad():
            flat = small.state_dict()[name].view(-1)
            flat[-1] = torch.nextafter(flat[-1], torch.tensor(9.0))
        self.fails(net, small, space, selection, re.escape(name))

    def test_permuted_inputs_of_a_consumer(self, net, space, selection):
        small = rp.cut(net, space, selection)
        with torch.no_grad():
            small.inner.weight.copy_(small.inner.weight[:, [1, 0, 2, 3]])
        self.fails(net, small, space, selection, "inner.weight")

    def test_a_missing_tensor(self, net, space, selection):
        small = rp.cut(net, space, selection)
        small.outer.bias = None
        self.fails(net, small, space, selection, "no tensor 'outer.bias'")

    @pytest.mark.parametrize("tensor", ["inner.weight", "end.weight", "norm.weight", "outer.bias"])
    def test_a_space_that_pairs_the_wrong_channels(self, net, space, selection, tensor):
        """The tensors then agree with the (wrong) plan: only the outputs tell."""
        wrong = altered(
            space, tensor, lambda slot: dataclasses.replace(slot, index=slot.index[::-1].copy())
        )
        chosen = dataclasses.replace(selection, fingerprint="")
        small = rp.cut(net, wrong, chosen)
        self.fails(net, small, wrong, chosen, "differs from the masked dense one")

    def test_a_space_that_forgets_a_coupled_layer(self, net, space, selection):
        wrong = altered(space, "outer.weight", lambda slot: None, group=STREAM)
        chosen = dataclasses.replace(selection, fingerprint="")
        small = rp.cut(net, wrong, chosen)
        self.fails(net, small, wrong, chosen, "does not run")

    def test_a_layer_that_computes_something_else(self, net, space, selection):
        small = rp.cut(net, space, selection)
        small.inner.dilation = small.inner.padding = (2, 2)
        self.fails(net, small, space, selection, "differs from the masked dense one")

    def test_outputs_that_prove_nothing(self):
        net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        silent = nn.Sequential(*net, nn.Threshold(1e9, 0.0))
        space = rp.trace(silent, IMAGES)
        if not len(space.groups):
            pytest.fail("the trial froze what it could not compare")
        selection = Selection((np.array([0, 2]),))
        with pytest.raises(rp.VerificationError, match="proves nothing"):
            verify(silent, rp.cut(silent, space, selection), space, selection)

    def test_the_error_is_an_assertion_too(self):
        assert issubclass(rp.VerificationError, AssertionError)
        assert issubclass(rp.VerificationError, rp.RandpruneError)


def altered(space: Space, tensor: str, change, group: int | None = None) -> Space:
    """The space with every slot on a tensor changed (None: dropped)."""
    groups = []
    for number, old in enumerate(space.groups):
        slots: list[Slot] = []
        for slot in old.slots:
            hit = slot.tensor == tensor and group in (None, number)
            slots.extend(s for s in [change(slot) if hit else slot] if s is not None)
        groups.append(ChannelGroup(old.name, old.width, tuple(slots)))
    return dataclasses.replace(space, groups=tuple(groups))
