"""`as_graph=True`: what a module's constants forbid can be cut in the emitted graph."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exactness import (
    Net,
    check,
    classifier,
    counted_macs,
    drawn,
    image,
    random_kept,
    reasons_of,
    state_bytes,
    widths_of,
)
from torch import nn

import randprune as rp

Conv = nn.Conv2d


def both(net, inputs, **options):
    """Widths in the module and in the emitted graph, where every cut is proven."""
    module = widths_of(rp.trace(net, inputs))
    return module, widths_of(check(net, inputs, as_graph=True, retrace=False, **options))


class TestConstants:
    def test_a_view(self):
        net = Net(lambda s, x: s.f(s.a(x).view(-1, 80)), a=Conv(3, 5, 3), f=nn.Linear(80, 3))
        assert both(net, image(size=6)) == ({}, {"a": 5})

    def test_sizes_of_a_split(self):
        def run(s, x):
            a, b = torch.split(s.a(x), [3, 5], 1)
            return s.end(torch.cat([s.b(a), b], 1))

        net = Net(run, a=Conv(3, 8, 1), b=Conv(3, 4, 1), end=classifier(9))
        assert both(net, image()) == ({"b": 4}, {"a": 3, "a#2": 5, "b": 4})

    def test_bounds_of_a_slice(self):
        def run(s, x):
            y = s.a(x)
            return s.end(s.b(y[:, 2:7]) + y[:, 7:])

        net = Net(run, a=Conv(3, 9, 1), b=Conv(5, 2, 1), end=classifier(2))
        module, graph = both(net, image())
        # Cutting the last two channels moves no bound; in the graph, bounds follow (and two unused
        # channels can go).
        assert module == {"a": 2}
        assert sorted(graph.values()) == [2, 2, 5]

    def test_zero_channels(self):
        """Cut zeros and cut channels go apart from each other, unlike in the module."""

        def run(s, x):
            y = s.a(x)
            return s.end(F.relu(s.b(F.relu(y)) + F.pad(y, (0, 0, 0, 0, 2, 2))))

        net = Net(run, a=Conv(3, 4, 1), b=Conv(4, 8, 1), end=classifier(8))
        assert both(net, image()) == ({"a": 4}, {"a": 4, "b": 4})

    def test_number_of_shuffled_groups_and_literal_sizes(self):
        def run(s, x):
            y = s.a(x).view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8)
            return s.end(s.b(y))

        net = Net(run, a=Conv(3, 8, 1), b=Conv(8, 8, 3, groups=8), end=classifier(8))
        assert both(net, image()) == ({}, {"a": 4})

    def test_groups_of_a_functional_convolution(self):
        net = Net(
            lambda s, x: s.end(F.conv2d(s.a(x), s.kernel, groups=6)),
            a=Conv(3, 6, 1),
            end=classifier(6),
        )
        net.register_buffer("kernel", drawn(6, 1, 3, 3))
        assert both(net, image()) == ({}, {"a": 6})

    def test_group_norm_without_parameters(self):
        net = nn.Sequential(Conv(3, 8, 1), nn.GroupNorm(4, 8, affine=False), nn.ReLU())
        net.append(classifier(8))
        assert both(net, image())[1] == {"0": 4}

    def test_everything_else_is_as_in_the_module(self):
        net = nn.Sequential(Conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Conv(8, 6, 3))
        net.append(classifier(6))
        assert both(net, image()) == ({"0": 8, "3": 6}, {"0": 8, "3": 6})


class TestAttention:
    @pytest.mark.parametrize("norm_first", [True, False])
    def test_whole_heads(self, norm_first):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
        net = nn.Sequential(nn.Linear(6, 8), layer, nn.Linear(8, 3))
        module, graph = both(net, drawn(2, 5, 6))
        assert module == {"1.linear1": 16}
        assert graph == {"1.self_attn": 2, "1.linear1": 16}

    def test_qkv_in_one_layer(self):
        """timm's attention: one linear layer, a view with the number of heads, and unbind."""

        def run(s, x):
            b, n, c = x.shape
            qkv = s.qkv(x).reshape(b, n, 3, 4, 2).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
            return s.o(y)

        net = Net(run, qkv=nn.Linear(8, 24), o=nn.Linear(8, 3))
        space = check(net, drawn(2, 5, 8), as_graph=True, retrace=False)
        assert widths_of(space) in ({"qkv": 4}, {})
        if not len(space.groups):
            assert "qkv" in reasons_of(space)


class TestComputedWeights:
    def test_standardised_weights_are_folded(self):
        class Standardised(nn.Conv2d):
            def forward(self, x):
                w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
                w = w / (w.std((1, 2, 3), keepdim=True) + 1e-5)
                return self._conv_forward(x, w, self.bias)

        net = nn.Sequential(Standardised(3, 8, 3), nn.ReLU(), Standardised(8, 6, 3), classifier(6))
        assert both(net, image()) == ({"2": 6}, {"0": 8, "2": 6})

    def test_spectral_norm(self):
        """Folded under the weight's own name, although another vector is as long."""
        norm = torch.nn.utils.parametrizations.spectral_norm
        net = nn.Sequential(norm(Conv(3, 8, 3)), nn.ReLU(), nn.Flatten(), norm(nn.Linear(288, 1)))
        module, graph = both(net, image())
        assert (module, list(graph.values())) == ({}, [8])
        slots = {s.tensor for g in rp.trace(net, image(), as_graph=True).groups for s in g.slots}
        assert slots <= {name for name, _ in net.named_parameters()}

    def test_weight_norm(self):
        norm = torch.nn.utils.parametrizations.weight_norm
        net = nn.Sequential(norm(Conv(3, 8, 3)), nn.ReLU(), norm(Conv(8, 6, 3)), classifier(6))
        module, graph = both(net, image())
        assert list(module.values()) == [6]
        assert list(graph.values()) == [8, 6]


class TestNetwork:
    """The emitted network as a network: free batch, training, structure, memory."""

    @pytest.fixture
    def net(self):
        torch.manual_seed(0)
        return nn.Sequential(
            Conv(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            Conv(8, 6, 3),
            nn.Flatten(),
            nn.Linear(96, 3),
        )

    @pytest.mark.parametrize("batch", [1, 2])
    def test_the_batch_stays_free(self, net, batch):
        space = rp.trace(net, image(batch), as_graph=True)
        small = rp.cut(net, space, random_kept(space, 0)).eval()
        whole = small(image(5))
        assert whole.shape == (5, 3)
        assert torch.allclose(torch.cat([small(x[None]) for x in image(5)]), whole, atol=1e-6)

    def test_layers_keep_their_names_and_types(self, net):
        space = rp.trace(net, image(), as_graph=True)
        small = rp.cut(net, space, random_kept(space, 1))
        layers = dict(small.named_modules())
        assert all(isinstance(layers[name], nn.Conv2d) for name in ("0", "3"))
        assert isinstance(layers["1"], nn.modules.batchnorm._BatchNorm)
        assert set(small.state_dict()) == set(net.state_dict())

    def test_the_dense_graph_computes_what_the_module_computes(self, net):
        space = rp.trace(net, image(), as_graph=True)
        dense = rp.cut(net, space, space.dense)
        assert torch.allclose(dense.eval()(image()), net.eval()(image()), atol=1e-6)

    def test_batch_norm_trains(self, net):
        space = rp.trace(net, image(), as_graph=True)
        small = rp.cut(net, space, random_kept(space, 0)).train()
        before = small.state_dict()["1.running_mean"].clone()
        small(image()).sum().backward()
        assert not torch.equal(small.state_dict()["1.running_mean"], before)
        assert all(p.grad is not None for p in small.parameters())

    def test_copies_and_saves_as_tensors(self, net, tmp_path):
        space = rp.trace(net, image(), as_graph=True)
        small = rp.cut(net, space, random_kept(space, 0)).eval()
        twin = copy.deepcopy(small)
        torch.save(small.state_dict(), tmp_path / "small.pt")
        twin.load_state_dict(torch.load(tmp_path / "small.pt", weights_only=True))
        assert torch.equal(twin(image()), small(image()))

    def test_the_callers_model_stays(self, net):
        before, mode = state_bytes(net), net.training
        space = rp.trace(net, image(), as_graph=True)
        small = rp.cut(net, space, random_kept(space, 0))
        with torch.no_grad():
            for p in small.parameters():
                p.fill_(3.0)
        assert state_bytes(net) == before
        assert net.training == mode

    def test_wrong_channels_are_caught(self, net):
        space = rp.trace(net, image(), as_graph=True)
        first, second = random_kept(space, 0, 0.5, 0.8), random_kept(space, 1, 0.5, 0.8)
        small = rp.cut(net, space, first)
        assert rp.verify(net, small, space, first, image()) < 1e-6
        with pytest.raises(rp.VerificationError):
            rp.verify(net, small, space, second, image())
        with torch.no_grad():
            small.state_dict()["1.running_var"].mul_(1.5)
        with pytest.raises(rp.VerificationError, match=r"1\.running_var"):
            rp.verify(net, small, space, first, image())

    def test_graphs_of_module_spaces_on_demand(self, net):
        """A space of the module, cut as a graph: the same network."""
        space = rp.trace(net, image())
        selection = random_kept(space, 2)
        module, graph = rp.cut(net, space, selection), rp.cut(net, space, selection, as_graph=True)
        assert torch.allclose(module.eval()(image()), graph.eval()(image()), atol=1e-6)
        assert counted_macs(graph, image()) == float(space.cost("macs")(selection.widths))

    def test_unused_layers_are_gone(self):
        net = Net(lambda s, x: s.end(s.a(x)), a=Conv(3, 6, 1), unused=Conv(6, 7, 1))
        net.end = classifier(6)
        space = check(net, image(), as_graph=True, retrace=False)
        assert space.cost("params").dense == 24 + 21

    def test_dead_results_cost_nothing(self):
        def run(s, x):
            s.b(x)
            return s.end(s.a(x))

        net = Net(run, a=Conv(3, 6, 1), b=Conv(3, 7, 1), end=classifier(6))
        assert widths_of(check(net, image(), as_graph=True, retrace=False)) == {"a": 6}

    def test_kept_sets_of_different_sizes(self, net):
        space = rp.trace(net, image(), as_graph=True)
        for kept in ((1, 1), (8, 1), (1, 6), (5, 3)):
            chosen = tuple(np.arange(k) for k in kept)
            small = rp.cut(net, space, rp.Selection(chosen))
            rp.verify(net, small, space, rp.Selection(chosen), image())
