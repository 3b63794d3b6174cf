"""Position-by-position operations, normalisation, reductions and pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exactness import Net, check, classifier, drawn, image, reasons_of, slots_of, widths_of
from torch import nn

import randprune as rp

Conv = nn.Conv2d


class TestCombinations:
    def test_residual(self):
        def run(s, x):
            y = s.a(x)
            return s.end(F.relu(y + s.norm(s.b(F.relu(y)))))

        net = Net(run, a=Conv(3, 8, 1), b=Conv(8, 8, 3, padding=1), norm=nn.BatchNorm2d(8))
        net.end = classifier(8)
        space = check(net, image())
        assert widths_of(space) == {"a": 8}
        assert {("b.weight", 0), ("b.weight", 1), ("norm.running_var", 0)} <= set(
            slots_of(space, "a")
        )

    @pytest.mark.parametrize(
        "combine",
        [
            torch.add,
            torch.sub,
            torch.mul,
            torch.maximum,
            torch.minimum,
            lambda a, b: a / (1 + b.abs()),
            lambda a, b: torch.where(a > 0, a, b),
            lambda a, b: torch.lerp(a, b, 0.3),
            lambda a, b: torch.addcmul(a, a, b, value=0.5),
            lambda a, b: a * torch.sigmoid(b),
            lambda a, b: torch.stack([a, b]).mean(0),
            lambda a, b: torch.stack([a, b], -1).amax(-1),
            lambda a, b: a.masked_fill(b > 1, 0.5),
            lambda a, b: torch.clamp(a, min=b),
            lambda a, b: torch.hypot(a, b),
            lambda a, b: a.pow(2) - b**3 + a.add(b, alpha=2),
        ],
    )
    def test_of_two_branches(self, combine):
        net = Net(lambda s, x: s.end(combine(s.a(x), s.b(x))), a=Conv(3, 6, 1), b=Conv(3, 6, 1))
        net.end = classifier(6)
        space = check(net, image())
        assert widths_of(space) == {"a": 6}
        assert {("a.weight", 0), ("b.weight", 0)} <= set(slots_of(space, "a"))

    def test_in_place(self):
        def run(s, x):
            y = s.a(x)
            y += s.b(x)
            y.mul_(2).clamp_(-1, 1)
            return s.end(F.relu(y, inplace=True))

        net = Net(run, a=Conv(3, 6, 1), b=Conv(3, 6, 1), end=classifier(6))
        assert widths_of(check(net, image())) == {"a": 6}

    def test_with_the_input_is_frozen(self):
        net = Net(lambda s, x: s.end(s.a(x) + x), a=Conv(3, 3, 1), end=classifier(3))
        space = check(net, image())
        assert reasons_of(space)["a"] == (
            "combined with channels that are fixed in the network (add)"
        )

    @pytest.mark.parametrize(
        "layer",
        [
            nn.ReLU(),
            nn.ReLU6(inplace=True),
            nn.LeakyReLU(0.1),
            nn.ELU(),
            nn.SELU(),
            nn.CELU(),
            nn.GELU(),
            nn.SiLU(),
            nn.Mish(),
            nn.Hardswish(inplace=True),
            nn.Hardsigmoid(),
            nn.Hardtanh(),
            nn.Softplus(),
            nn.Softsign(),
            nn.Tanhshrink(),
            nn.Softshrink(),
            nn.Hardshrink(),
            nn.LogSigmoid(),
            nn.Threshold(0.1, 20.0),
            nn.RReLU(),
            nn.Sigmoid(),
            nn.Tanh(),
            nn.Identity(),
            nn.Dropout(0.5),
            nn.Dropout2d(0.5),
            nn.AlphaDropout(0.5),
        ],
        ids=lambda layer: type(layer).__name__,
    )
    def test_activations(self, layer):
        net = nn.Sequential(Conv(3, 6, 1), layer, classifier(6))
        assert widths_of(check(net, image(), seeds=(0,), train=False)) == {"0": 6}

    def test_prelu(self):
        net = nn.Sequential(Conv(3, 6, 1), nn.PReLU(6), Conv(6, 4, 1), nn.PReLU(), classifier(4))
        space = check(net, image())
        assert widths_of(space) == {"0": 6, "2": 4}
        assert slots_of(space, "0")["1.weight", 0] == ("pass", (6, 1))
        assert rp.cut(net, space, rp.Selection((np.arange(2), np.arange(4))))[1].num_parameters == 2

    def test_glu_couples_gate_and_value(self):
        net = nn.Sequential(Conv(3, 8, 1), nn.GLU(1), Conv(4, 4, 1), classifier(4))
        space = check(net, image())
        assert space.group("0").slots[0].index.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]

    def test_layer_scale(self):
        def run(s, x):
            y = s.a(x)
            return s.end(y + s.gain * s.b(y))

        net = Net(run, a=Conv(3, 8, 1), b=Conv(8, 8, 1), end=classifier(8))
        net.gain = nn.Parameter(1e-6 * torch.ones(8, 1, 1))
        assert slots_of(check(net, image()), "a")["gain", 0] == ("pass", (8, 1))

    def test_weights_per_place_that_are_summed(self):
        net = Net(
            lambda s, x: s.end((s.a(x).unsqueeze(2) * s.w[None, :, :, None, None]).sum(2)),
            a=Conv(3, 6, 1),
            w=nn.Parameter(drawn(6, 4)),
            end=classifier(6),
        )
        assert slots_of(check(net, image()), "a")["w", 0] == ("pass", (6, 1))


class TestGates:
    def test_squeeze_and_excitation(self):
        def run(s, x):
            y = s.a(x)
            return s.end(y * torch.sigmoid(s.e(F.relu(s.r(y.mean((2, 3), keepdim=True))))))

        net = Net(run, a=Conv(3, 8, 1), r=Conv(8, 4, 1), e=Conv(4, 8, 1), end=classifier(8))
        space = check(net, image())
        assert widths_of(space) == {"a": 8, "r": 4}
        assert {("e.weight", 0), ("r.weight", 1)} <= set(slots_of(space, "a"))

    def test_squeeze_and_excitation_by_linear_layers_and_views(self):
        def run(s, x):
            y = s.a(x)
            b, c, _, _ = y.shape
            gate = torch.sigmoid(s.e(F.relu(s.r(F.adaptive_avg_pool2d(y, 1).view(b, c)))))
            return s.end(y * gate.view(b, c, 1, 1).expand_as(y))

        net = Net(run, a=Conv(3, 8, 1), r=nn.Linear(8, 4), e=nn.Linear(4, 8), end=classifier(8))
        assert widths_of(check(net, image())) == {"a": 8, "r": 4}

    def test_channel_attention_by_a_convolution_over_channels_is_frozen(self):
        """ECA: the kernel slides along the channels, so that their neighbours matter."""

        def run(s, x):
            y = s.a(x)
            gate = torch.sigmoid(s.e(y.mean((2, 3)).unsqueeze(1)))
            return s.end(y * gate.transpose(1, 2).unsqueeze(-1))

        net = Net(run, a=Conv(3, 8, 1), e=nn.Conv1d(1, 1, 3, padding=1, bias=False))
        net.end = classifier(8)
        space = check(net, image())
        assert reasons_of(space)["a"] == "the convolution runs along these channels in e (conv1d)"

    def test_spatial_attention_from_a_convolution(self):
        net = Net(lambda s, x: s.end(s.a(x) * torch.sigmoid(s.g(s.a(x)))), a=Conv(3, 8, 1))
        net.g, net.end = Conv(8, 1, 3, padding=1), classifier(8)
        assert widths_of(check(net, image())) == {"a": 8}

    def test_selection_between_branches(self):
        """Selective kernels: a softmax over the branches, not over channels."""

        def run(s, x):
            u = torch.stack([s.a(x), s.b(x)], 1)
            z = F.relu(s.r(u.sum(1).mean((2, 3))))
            weights = torch.softmax(s.e(z).view(-1, 2, u.shape[2]), 1)
            return s.end((u * weights[..., None, None]).sum(1))

        net = Net(run, a=Conv(3, 6, 1), b=Conv(3, 6, 1), r=nn.Linear(6, 4), e=nn.Linear(4, 12))
        net.end = classifier(6)
        space = check(net, image())
        assert widths_of(space) == {"a": 6, "r": 4}
        assert slots_of(space, "a")["e.weight", 0] == ("pass", (6, 2)) or slots_of(space, "a")[
            "e.weight", 0
        ] == ("out", (6, 2))


class TestNormalisation:
    @pytest.mark.parametrize("affine", [True, False])
    @pytest.mark.parametrize("statistics", [True, False])
    def test_batch_norm(self, affine, statistics):
        norm = nn.BatchNorm2d(8, affine=affine, track_running_stats=statistics)
        net = nn.Sequential(Conv(3, 8, 1, bias=False), norm, nn.ReLU(), classifier(8))
        space = check(net, image())
        names = {tensor for tensor, _ in slots_of(space, "0")} - {"0.weight", "3.2.weight"}
        wanted = {"1.weight", "1.bias"} if affine else set()
        wanted |= {"1.running_mean", "1.running_var"} if statistics else set()
        assert names == wanted
        small = rp.cut(net, space, rp.Selection((np.array([2, 5]),)))
        assert small[1].num_features == 2

    def test_batch_norm_of_vectors_and_volumes(self):
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.BatchNorm1d(10), nn.Linear(10, 3))
        assert widths_of(check(net, image())) == {"1": 10}
        net = nn.Sequential(nn.Conv3d(2, 6, 3), nn.BatchNorm3d(6), nn.MaxPool3d(2), nn.Flatten())
        net.append(nn.Linear(48, 2))
        assert widths_of(check(net, drawn(2, 2, 6, 6, 6))) == {"0": 6}

    def test_a_model_in_training_mode_is_traced_in_evaluation_mode(self):
        net = nn.Sequential(Conv(3, 8, 1), nn.BatchNorm2d(8), nn.Dropout(), classifier(8)).train()
        net[1].eval()
        check(net, image())
        assert [module.training for module in net] == [True, False, True, True]

    @pytest.mark.parametrize("affine", [True, False])
    @pytest.mark.parametrize("statistics", [True, False])
    def test_instance_norm(self, affine, statistics):
        norm = nn.InstanceNorm2d(8, affine=affine, track_running_stats=statistics)
        net = nn.Sequential(Conv(3, 8, 1), norm, nn.ReLU(), classifier(8))
        assert widths_of(check(net, image())) == {"0": 8}

    def test_group_norm_loses_whole_groups(self):
        net = nn.Sequential(Conv(3, 8, 1), nn.GroupNorm(4, 8), nn.ReLU(), classifier(8))
        space = check(net, image())
        assert widths_of(space) == {"0": 4}
        assert space.group("0").slots[0].index.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
        small = rp.cut(net, space, rp.Selection((np.array([0, 3]),)))
        assert (small[1].num_groups, small[1].num_channels) == (2, 4)

    def test_norms_without_tensors_know_their_size(self):
        """Its numbers follow although no tensor could tell; calls of one layer are tied."""
        net = nn.Sequential(
            Conv(3, 8, 1),
            nn.GroupNorm(4, 8, affine=False),
            Conv(8, 6, 1),
            nn.InstanceNorm2d(6),
            classifier(6),
        )
        space = check(net, image())
        assert widths_of(space) == {"0": 4, "2": 6}
        small = rp.cut(net, space, rp.Selection((np.array([0, 3]), np.array([1, 2, 5]))))
        assert (small[1].num_groups, small[1].num_channels) == (2, 4)
        assert small[3].num_features == 3

        def run(s, x):
            return s.end(torch.cat([s.n(s.a(x)), s.n(s.b(x))], 1))

        net = Net(run, a=Conv(3, 6, 1), b=Conv(3, 6, 1), n=nn.InstanceNorm2d(6), end=classifier(12))
        assert widths_of(check(net, image())) == {"a": 6}

        def gather(s, x):
            return s.end(s.n(torch.cat([s.a(x), s.b(x)], 1)))

        net = Net(gather, a=Conv(3, 4, 1), b=Conv(3, 2, 1), n=nn.GroupNorm(3, 6, affine=False))
        net.end = classifier(6)
        space = check(net, image())
        assert widths_of(space) == {"a": 2, "b": 1}
        small = rp.cut(net, space, rp.Selection((np.array([1]), np.array([0]))))
        assert (small.n.num_groups, small.n.num_channels) == (2, 4)

    def test_group_norm_of_one_channel_a_group(self):
        net = nn.Sequential(Conv(3, 8, 1), nn.GroupNorm(8, 8), nn.ReLU(), classifier(8))
        space = check(net, image())
        assert widths_of(space) == {"0": 8}
        assert rp.cut(net, space, rp.Selection((np.array([4]),)))[1].num_groups == 1

    def test_group_norm_over_all_channels_is_frozen(self):
        net = nn.Sequential(Conv(3, 8, 1), nn.GroupNorm(1, 8), nn.ReLU(), classifier(8))
        reason = reasons_of(check(net, image()))["0"]
        assert reason == "group norm over all channels in 1 (group_norm)"

    def test_layer_norm_over_channels_is_frozen(self):
        def run(s, x):
            y = s.n(s.a(x).permute(0, 2, 3, 1))
            return s.o(s.d(F.gelu(s.c(y))).permute(0, 3, 1, 2))

        net = Net(run, a=Conv(3, 8, 1), n=nn.LayerNorm(8), c=nn.Linear(8, 12), d=nn.Linear(12, 6))
        net.o = Conv(6, 2, 1)
        space = check(net, image())
        assert widths_of(space) == {"c": 12, "d": 6}
        assert reasons_of(space)["a"] == "layer norm over channels in n (layer_norm)"

    def test_layer_norm_over_positions_passes_channels(self):
        net = nn.Sequential(Conv(3, 8, 1), nn.LayerNorm([8, 8]), nn.ReLU(), classifier(8))
        assert widths_of(check(net, image())) == {"0": 8}

    def test_rms_norm_is_frozen(self):
        net = nn.Sequential(nn.Linear(4, 6), nn.RMSNorm(6), nn.Linear(6, 8), nn.ReLU())
        net.append(nn.Linear(8, 2))
        space = check(net, drawn(3, 4))
        assert widths_of(space) == {"2": 8}
        assert "rms_norm" in reasons_of(space)["0"]

    def test_local_response_norm_is_frozen(self):
        net = nn.Sequential(Conv(3, 6, 1), nn.LocalResponseNorm(3), Conv(6, 4, 1), classifier(4))
        assert widths_of(check(net, image())) == {"2": 4}

    @pytest.mark.parametrize("kind", ["layer_norm", "group_norm"])
    def test_opting_in_states_the_loss(self, kind):
        norm = nn.GroupNorm(2, 8) if kind == "group_norm" else nn.LayerNorm(8)

        def run(s, x):
            y = s.a(x)
            y = s.n(y) if kind == "group_norm" else s.n(y.movedim(1, -1)).movedim(-1, 1)
            return s.end(F.relu(y))

        net = Net(run, a=Conv(3, 8, 1), n=norm, end=classifier(8))
        exact = rp.trace(net, image())
        assert exact.inexact == ()
        space = rp.trace(net, image(), allow=(kind,))
        assert space.inexact == (f"{kind.replace('_', ' ')} over channels in n ({kind})",)
        assert len(space.groups) == 1
        half = rp.Selection((np.arange(space.groups[0].width // 2),))
        small = rp.cut(net, space, half)
        assert small(image()).shape == (2, 3)
        assert small.a.out_channels == 4
        assert int(space.cost("params")(half.widths)) == sum(p.numel() for p in small.parameters())


class TestReductions:
    @pytest.mark.parametrize(
        ("name", "reduce"),
        [
            ("softmax", lambda y: F.softmax(y, 1)),
            ("softmax", lambda y: F.log_softmax(y, 1)),
            ("mean", lambda y: y * y.mean(1, keepdim=True)),
            ("sum", lambda y: y / (1 + y.abs().sum(1, keepdim=True))),
            ("amax", lambda y: y - y.amax(1, keepdim=True)),
            ("std", lambda y: y * y.std(1, keepdim=True)),
            ("cumsum", lambda y: y.cumsum(1)),
            ("linalg_vector_norm", lambda y: F.normalize(y, dim=1)),
            ("mean", lambda y: y - y.mean()),
        ],
    )
    def test_over_channels_are_frozen(self, name, reduce):
        net = Net(lambda s, x: s.end(reduce(s.a(x))), a=Conv(3, 6, 1), end=classifier(6))
        space = check(net, image())
        assert widths_of(space) == {}
        assert name in reasons_of(space)["a"]
        assert "over channels" in reasons_of(space)["a"]

    @pytest.mark.parametrize(
        "reduce",
        [
            lambda y: y.mean((2, 3)),
            lambda y: y.flatten(2).amax(2),
            lambda y: y.sum(3).amin(2),
            lambda y: y.std((2, 3)),
            lambda y: y.flatten(2).max(2).values,
            lambda y: y.flatten(2).logsumexp(2),
            lambda y: y.softmax(2).mean((-2, -1)),
            lambda y: torch.linalg.vector_norm(y, dim=(2, 3)),
            lambda y: y.flatten(2).topk(3).values.mean(2),
            lambda y: y.flatten(2).cumsum(2)[..., -1],
        ],
    )
    def test_over_positions_pass_channels(self, reduce):
        net = Net(lambda s, x: s.f(reduce(s.a(x))), a=Conv(3, 6, 1), f=nn.Linear(6, 2))
        assert widths_of(check(net, image())) == {"a": 6}

    def test_argmax_over_channels_is_frozen(self):
        net = Net(lambda s, x: s.a(x).argmax(1).float() + s.b(x)[:, 0], a=Conv(3, 6, 1))
        net.b = Conv(3, 1, 1)
        assert "argmax over channels" in reasons_of(rp.trace(net, image()))["a"]


class TestPooling:
    @pytest.mark.parametrize(
        "pool",
        [
            nn.MaxPool2d(3, 2, 1),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.AvgPool2d(2),
            nn.LPPool2d(2, 2),
            nn.AdaptiveAvgPool2d(2),
            nn.AdaptiveMaxPool2d(3),
            nn.Upsample(scale_factor=2),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Upsample(size=5, mode="bicubic"),
            nn.Upsample(scale_factor=1.5, mode="nearest-exact"),
            nn.Upsample(size=(6, 4), mode="area"),
        ],
    )
    def test_windows_and_resizing(self, pool):
        net = nn.Sequential(Conv(3, 6, 1), pool, Conv(6, 4, 1), classifier(4))
        assert widths_of(check(net, image())) == {"0": 6, "2": 4}

    def test_one_and_three_dimensions(self):
        net = nn.Sequential(
            nn.Conv1d(2, 6, 3), nn.MaxPool1d(2), nn.AvgPool1d(2), nn.Conv1d(6, 2, 1)
        )
        assert widths_of(check(net, drawn(2, 2, 20))) == {"0": 6}
        net = nn.Sequential(nn.Conv3d(2, 6, 1), nn.AvgPool3d(2), nn.AdaptiveMaxPool3d(1))
        net.append(nn.Conv3d(6, 2, 1))
        assert widths_of(check(net, drawn(2, 2, 4, 4, 4))) == {"0": 6}

    def test_unpooling_by_the_indices_of_a_pooling(self):
        def run(s, x):
            y, where = F.max_pool2d(s.a(x), 2, return_indices=True)
            return s.o(F.max_unpool2d(y, where, 2))

        net = Net(run, a=Conv(3, 6, 1), o=Conv(6, 2, 1))
        check(net, image())

    def test_sampling_from_a_grid(self):
        def run(s, x):
            grid = F.affine_grid(s.theta.expand(x.shape[0], -1, -1), x.shape, align_corners=False)
            return s.end(F.grid_sample(s.a(x), grid, align_corners=False))

        net = Net(run, a=Conv(3, 6, 1), end=classifier(6))
        net.register_buffer("theta", torch.tensor([[[1.0, 0.1, 0.0], [0.0, 0.9, 0.1]]]))
        assert widths_of(check(net, image())) == {"a": 6}
