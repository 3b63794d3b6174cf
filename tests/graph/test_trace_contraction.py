"""Convolutions, linear layers, matrix products and attention: each rule on its smallest network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exactness import Net, check, classifier, drawn, image, reasons_of, slots_of, widths_of
from torch import nn

import randprune as rp

Conv = nn.Conv2d


class TestConvolution:
    def test_plain(self):
        net = nn.Sequential(Conv(3, 8, 3), nn.ReLU(), Conv(8, 6, 3, stride=2), classifier(6))
        space = check(net, image())
        assert widths_of(space) == {"0": 8, "2": 6}
        assert slots_of(space, "0") == {
            ("0.weight", 0): ("out", (8, 1)),
            ("0.bias", 0): ("pass", (8, 1)),
            ("2.weight", 1): ("in", (8, 1)),
        }
        assert reasons_of(space) == {"3.2": "it defines the network's output"}

    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("dimensions", [1, 2, 3])
    def test_every_dimension(self, dimensions, bias):
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
        net = nn.Sequential(conv(2, 6, 3, bias=bias), nn.ReLU(), conv(6, 4, 1), conv(4, 2, 1))
        assert widths_of(check(net, drawn(2, 2, *[5] * dimensions))) == {"0": 6, "2": 4}

    def test_padding_by_name_dilation_and_other_padding_modes(self):
        net = nn.Sequential(
            Conv(3, 6, 3, dilation=2, padding="same"),
            Conv(6, 5, 3, padding="same", padding_mode="reflect"),
            Conv(5, 4, 3, padding=1, padding_mode="circular"),
            Conv(4, 4, 3, padding=2, padding_mode="replicate"),
            classifier(4),
        )
        assert widths_of(check(net, image())) == {"0": 6, "1": 5, "2": 4, "3": 4}

    def test_groups_keep_equal_widths(self):
        net = nn.Sequential(
            Conv(3, 8, 1), Conv(8, 12, 3, groups=4), nn.ReLU(), Conv(12, 6, 3, groups=2)
        )
        net.append(classifier(6))
        space = check(net, image())
        # 12 channels leave four groups of three and enter two groups of six: tied by six and three.
        assert widths_of(space) == {"0": 2, "1": 3, "3": 3}
        index = {(s.tensor, s.dim): s.index for s in space.group("1").slots}
        assert index["1.weight", 0].tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
        assert index["3.weight", 1].tolist() == [[0, 3], [1, 4], [2, 5]]
        small = rp.cut(net, space, rp.Selection((np.array([1]), np.array([0, 2]), np.array([1]))))
        assert (small[1].in_channels, small[1].out_channels, small[1].groups) == (4, 8, 4)
        assert (small[3].in_channels, small[3].out_channels, small[3].groups) == (8, 2, 2)

    @pytest.mark.parametrize("multiplier", [1, 2, 3])
    def test_depthwise_with_multiplier(self, multiplier):
        net = nn.Sequential(
            Conv(3, 5, 1), Conv(5, 5 * multiplier, 3, groups=5), nn.ReLU(), classifier(5)
        )
        net[3] = classifier(5 * multiplier)
        space = check(net, image())
        assert widths_of(space) == {"0": 5}
        assert slots_of(space, "0")["1.weight", 0] == ("out", (5, multiplier))
        small = rp.cut(net, space, rp.Selection((np.array([0, 3]),)))
        assert (small[1].groups, small[1].in_channels) == (2, 2)
        assert small[1].out_channels == 2 * multiplier

    def test_depthwise_on_the_input_image_is_frozen(self):
        net = nn.Sequential(Conv(3, 9, 1, groups=3), nn.ReLU(), Conv(9, 5, 1), classifier(5))
        space = check(net, image())
        assert widths_of(space) == {"2": 5}
        assert reasons_of(space)["0"] == "depthwise filters of fixed channels in 0 (conv2d)"

    def test_channels_of_the_input_image_are_frozen(self):
        net = Net(lambda s, x: s.end(s.b(x)), b=Conv(3, 5, 1), end=classifier(5))
        assert all(
            (slot.tensor, slot.dim) != ("b.weight", 1)
            for group in check(net, image()).groups
            for slot in group.slots
        )

    def test_a_kernel_computed_from_activations_is_frozen(self):
        def run(s, x):
            kernel = s.k(x.mean((2, 3))).view(x.shape[0] * 6, 1, 3, 3)
            y = s.a(x)
            wide = F.conv2d(y.reshape(1, -1, 8, 8), kernel, padding=1, groups=6 * x.shape[0])
            return s.end(wide.view(x.shape[0], 6, 8, 8))

        net = Net(run, a=Conv(3, 6, 1), k=nn.Linear(3, 54), end=classifier(6))
        space = check(net, image())
        assert widths_of(space) == {}
        assert "kernel is computed from activations" in reasons_of(space)["a"]

    def test_weight_in_the_order_of_another_layout(self):
        """A stored (in, out) kernel, turned in the forward pass."""
        net = Net(
            lambda s, x: s.end(F.relu(F.conv2d(x, s.w.permute(1, 0, 2, 3)))),
            w=nn.Parameter(drawn(3, 6, 3, 3)),
            end=classifier(6),
        )
        space = check(net, image())
        assert slots_of(space, "w") == {
            ("w", 1): ("out", (6, 1)),
            ("end.2.weight", 1): ("in", (6, 1)),
        }


class TestTransposedConvolution:
    @pytest.mark.parametrize("dimensions", [1, 2, 3])
    def test_plain(self, dimensions):
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
        up = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dimensions - 1]
        net = nn.Sequential(conv(2, 6, 1), nn.ReLU(), up(6, 4, 2, stride=2), conv(4, 2, 1))
        space = check(net, drawn(2, 2, *[3] * dimensions))
        assert widths_of(space) == {"0": 6, "2": 4}
        assert slots_of(space, "2")["2.weight", 1] == ("out", (4, 1))

    def test_grouped(self):
        net = nn.Sequential(Conv(3, 8, 1), nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2))
        net.extend([nn.ReLU(), Conv(6, 4, 1), classifier(4)])
        space = check(net, image(size=5))
        assert widths_of(space) == {"0": 4, "1": 3, "3": 4}
        assert slots_of(space, "1")["1.bias", 0] == ("pass", (3, 2))
        small = rp.cut(net, space, rp.Selection((np.arange(2), np.array([2]), np.arange(4))))
        assert (small[1].in_channels, small[1].out_channels, small[1].groups) == (4, 2, 2)

    @pytest.mark.parametrize("multiplier", [1, 2])
    def test_depthwise(self, multiplier):
        up = nn.ConvTranspose2d(6, 6 * multiplier, 2, stride=2, groups=6)
        net = nn.Sequential(Conv(3, 6, 1), up, nn.ReLU(), Conv(6 * multiplier, 4, 1))
        net.append(classifier(4))
        space = check(net, image(size=5))
        assert widths_of(space) == {"0": 6, "3": 4}
        small = rp.cut(net, space, rp.Selection((np.array([1, 4]), np.arange(4))))
        assert (small[1].groups, small[1].out_channels) == (2, 2 * multiplier)

    def test_output_size_is_read_at_run_time(self):
        net = Net(
            lambda s, x: s.o(s.u(F.relu(s.a(x)), output_size=x.shape[-2:])),
            a=Conv(3, 6, 3, stride=2, padding=1),
            u=nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1),
            o=Conv(4, 2, 1),
        )
        assert widths_of(check(net, image())) == {"a": 6, "u": 4}


class TestLinear:
    def test_after_flatten_one_channel_is_many_features(self):
        net = nn.Sequential(Conv(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 7), nn.ReLU())
        net.append(nn.Linear(7, 3))
        space = check(net, image(size=6))
        assert widths_of(space) == {"0": 5, "3": 7}
        slot = next(s for s in space.group("0").slots if s.tensor == "3.weight")
        assert slot.index.shape == (5, 16)
        assert np.array_equal(slot.index[2], np.arange(32, 48))

    def test_after_flatten_of_channels_last(self):
        net = Net(
            lambda s, x: s.f(s.a(x).permute(0, 2, 3, 1).flatten(1)),
            a=Conv(3, 5, 3),
            f=nn.Linear(80, 3),
        )
        space = check(net, image(size=6))
        slot = next(s for s in space.group("a").slots if s.tensor == "f.weight")
        assert np.array_equal(slot.index[2], np.arange(2, 80, 5))

    def test_on_tokens(self):
        net = Net(
            lambda s, x: s.o(F.gelu(s.l(s.a(x).flatten(2).transpose(1, 2)))),
            a=Conv(3, 6, 2, stride=2),
            l=nn.Linear(6, 5),
            o=nn.Linear(5, 2),
        )
        assert widths_of(check(net, image())) == {"a": 6, "l": 5}

    def test_across_tokens_leaves_channels_alone(self):
        """A mixer's token layer: the linear layer runs along positions, channels pass."""

        def run(s, x):
            y = s.a(x).flatten(2)
            return s.o((y + s.t2(F.gelu(s.t1(y)))).mean(-1))

        net = Net(
            run,
            a=Conv(3, 6, 2, stride=2),
            t1=nn.Linear(16, 9),
            t2=nn.Linear(9, 16),
            o=nn.Linear(6, 2),
        )
        assert widths_of(check(net, image())) == {"a": 6, "t1": 9}

    def test_one_weight_that_produces_and_consumes_is_exact_or_frozen(self):
        """A tied decoder: the rows of one weight are filters there and inputs here."""
        net = Net(lambda s, x: F.linear(F.relu(s.l(x)), s.l.weight.t()), l=nn.Linear(6, 10))
        check(net, drawn(8, 6))


class TestProducts:
    def test_matmul_with_a_weight(self):
        net = Net(
            lambda s, x: F.relu(s.a(x).mean((2, 3)) @ s.w + s.b) @ s.v,
            a=Conv(3, 6, 1),
            w=nn.Parameter(drawn(6, 4)),
            b=nn.Parameter(drawn(4)),
            v=nn.Parameter(drawn(4, 2)),
        )
        space = check(net, image())
        assert widths_of(space) == {"a": 6, "w": 4}
        assert slots_of(space, "w") == {
            ("w", 1): ("out", (4, 1)),
            ("v", 0): ("in", (4, 1)),
            ("b", 0): ("pass", (4, 1)),
        }

    def test_einsum_is_decomposed(self):
        net = Net(
            lambda s, x: s.end(torch.einsum("bchw,oc->bohw", s.a(x), s.w)),
            a=Conv(3, 8, 1),
            w=nn.Parameter(drawn(6, 8)),
            end=classifier(6),
        )
        assert widths_of(check(net, image())) == {"a": 8, "w": 6}

    def test_product_of_activations_freezes_the_contracted_channels_only(self):
        def run(s, x):
            y = s.a(x)
            q, k, v = (layer(y).flatten(2) for layer in (s.q, s.k, s.v))
            weights = (q.transpose(1, 2) @ k).softmax(-1)
            out = (v @ weights.transpose(1, 2)).view(y.shape[0], -1, *y.shape[2:])
            return s.end(y + s.o(out))

        layers = {name: Conv(6, 4, 1) for name in "qkv"}
        net = Net(run, a=Conv(3, 6, 1), o=Conv(4, 6, 1), end=classifier(6), **layers)
        space = check(net, image(size=4))
        assert widths_of(space) == {"a": 6, "v": 4}
        why = "product of two activations over channels in the network (matmul)"
        assert reasons_of(space)["q"] == reasons_of(space)["k"] == why

    def test_bilinear_is_frozen(self):
        net = Net(
            lambda s, x: s.o(s.l(s.a(x).mean((2, 3)), s.a(x).mean((2, 3)))),
            a=Conv(3, 5, 1),
            l=nn.Bilinear(5, 5, 4),
            o=nn.Linear(4, 2),
        )
        assert "bilinear product" in reasons_of(check(net, image()))["a"]

    def test_linear_without_batch_axis(self):
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 2))
        assert widths_of(check(net, drawn(6))) == {"0": 8, "2": 5}


class TestAttention:
    def test_query_and_key_are_frozen_with_the_reason(self):
        def run(s, x):
            attended = F.scaled_dot_product_attention(s.q(x), s.k(x), s.v(x))
            return s.o(F.relu(s.p(attended)))

        layers = {name: nn.Linear(6, 8) for name in "qkv"}
        net = Net(run, p=nn.Linear(8, 7), o=nn.Linear(7, 3), **layers)
        space = check(net, drawn(2, 5, 6))
        assert widths_of(space)["p"] == 7
        assert "product of activations" in reasons_of(space)["q"]
        assert "scaled_dot_product_attention" in reasons_of(space)["k"]

    def test_multihead_attention_keeps_its_embedding(self):
        net = Net(
            lambda s, x: s.o(s.m(s.i(x), s.i(x), s.i(x))[0]),
            i=nn.Linear(6, 8),
            m=nn.MultiheadAttention(8, 2, batch_first=True),
            o=nn.Linear(8, 3),
        )
        space = check(net, drawn(2, 5, 6))
        assert widths_of(space) == {"m.out_proj": 8}
        assert "i" in reasons_of(space)

    def test_a_fixed_number_of_heads_keeps_them_all(self):
        """A head less hardly changes these outputs: in float32 by less than rounding may."""

        def run(s, x):
            y = s.stem(x)
            tokens = y.flatten(2).transpose(1, 2)
            parts = [m(tokens).unflatten(-1, (2, -1)).transpose(1, 2) for m in (s.q, s.k, s.v)]
            attended = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
            return s.straight(y) + s.o(attended).transpose(1, 2).reshape(len(y), -1, 4, 4)

        torch.manual_seed(0)
        layers = {name: nn.Linear(6, 4) for name in "qkv"}
        net = Net(run, stem=Conv(3, 6, 3, padding=1), straight=Conv(6, 6, 1), **layers)
        net.o = nn.Linear(4, 6)
        with torch.no_grad():
            net.o.weight.mul_(0.1)
        space = check(net, image(size=4))
        assert widths_of(space) == {"stem": 6}
        assert "changes what the forward computes" in reasons_of(space)["q"]

    @pytest.mark.parametrize("norm_first", [True, False])
    def test_transformer_layers_lose_hidden_features(self, norm_first):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
        net = nn.Sequential(nn.Linear(6, 8), layer, nn.Linear(8, 3))
        space = check(net, drawn(2, 5, 6))
        assert widths_of(space) == {"1.linear1": 16}
        assert "layer norm over channels" in reasons_of(space)["0"]


class TestEmbedding:
    def test_columns_are_channels(self):
        net = Net(
            lambda s, i: s.o(F.relu(s.l(s.e(i).transpose(1, 2))).amax(-1)),
            e=nn.Embedding(11, 8, padding_idx=0),
            l=nn.Conv1d(8, 6, 3),
            o=nn.Linear(6, 2),
        )
        tokens = torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(0))
        space = check(net, tokens)
        assert slots_of(space, "e") == {
            ("e.weight", 1): ("out", (8, 1)),
            ("l.weight", 1): ("in", (8, 1)),
        }
        small = rp.cut(net, space, rp.Selection((np.array([0, 5]), np.arange(6))))
        assert (small.e.num_embeddings, small.e.embedding_dim) == (11, 2)


class TestSharedWeights:
    def test_one_layer_applied_twice(self):
        net = Net(
            lambda s, x: s.end(s.b(F.relu(s.b(F.relu(s.a(x)))))),
            a=Conv(3, 8, 1),
            b=Conv(8, 8, 3, padding=1),
            end=classifier(8),
        )
        space = check(net, image())
        # What leaves the layer enters it again: one group with both of its axes.
        assert {("b.weight", 0), ("b.weight", 1)} <= set(slots_of(space, "a"))

    def test_one_layer_on_two_paths(self):
        net = Net(
            lambda s, x: s.end(s.b(s.a(x)) + s.b(s.c(x))),
            a=Conv(3, 8, 1),
            c=Conv(3, 8, 1),
            b=Conv(8, 6, 1),
            end=classifier(6),
        )
        assert widths_of(check(net, image())) == {"a": 8, "b": 6}

    def test_one_parameter_under_two_names(self):
        first, second = Conv(8, 8, 1), Conv(8, 8, 1)
        second.weight = first.weight
        net = Net(
            lambda s, x: s.end(s.c(F.relu(s.b(F.relu(s.a(x)))))),
            a=Conv(3, 8, 1),
            b=first,
            c=second,
            end=classifier(8),
        )
        space = check(net, image())
        small = rp.cut(net, space, rp.Selection((np.array([1, 2]),)))
        assert small.b.weight is small.c.weight

    def test_one_shared_head_on_several_levels(self):
        def run(s, x):
            a = F.relu(s.a(x))
            return [s.head(a), s.head(F.relu(s.b(a)))]

        head = nn.Sequential(Conv(4, 6, 1), nn.ReLU(), Conv(6, 2, 1))
        net = Net(run, a=Conv(3, 4, 1), b=Conv(4, 4, 1), head=head)
        assert widths_of(check(net, image())) == {"a": 4, "head.0": 6}


class TestComputedWeights:
    def test_weight_norm_keeps_the_inputs_that_its_norm_reads(self):
        norm = torch.nn.utils.parametrizations.weight_norm
        net = nn.Sequential(norm(Conv(3, 8, 3)), nn.ReLU(), Conv(8, 6, 3), classifier(6))
        space = check(net, image())
        assert sorted(space.widths.tolist()) == [6, 8]

    def test_weight_norm_of_the_consumer_is_frozen(self):
        norm = torch.nn.utils.parametrizations.weight_norm
        net = nn.Sequential(Conv(3, 8, 3), nn.ReLU(), norm(Conv(8, 6, 3)), classifier(6))
        space = check(net, image())
        assert "0" in reasons_of(space)

    def test_standardised_weights_freeze_their_inputs(self):
        class Standardised(nn.Conv2d):
            def forward(self, x):
                w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
                w = w / (w.std((1, 2, 3), keepdim=True) + 1e-5)
                return self._conv_forward(x, w, self.bias)

        net = nn.Sequential(Standardised(3, 8, 3), nn.ReLU(), Standardised(8, 6, 3), classifier(6))
        space = check(net, image())
        assert widths_of(space) == {"2": 6}

    def test_scaled_weights(self):
        class Scaled(nn.Conv2d):
            def __init__(self, *sizes):
                super().__init__(*sizes)
                self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

            def forward(self, x):
                return self._conv_forward(x, self.weight * self.gain, self.bias)

        net = nn.Sequential(Scaled(3, 8, 3), nn.ReLU(), Scaled(8, 6, 3), classifier(6))
        space = check(net, image())
        assert slots_of(space, "0")["0.gain", 0] == ("pass", (8, 1))
        assert space.widths.tolist() == [8, 6]
