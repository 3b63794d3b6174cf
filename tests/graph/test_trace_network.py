"""Whole networks: inputs and outputs of every form, freezing, refusals, and determinism."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exactness import (
    Net,
    check,
    classifier,
    drawn,
    image,
    reasons_of,
    state_bytes,
    widths_of,
)
from torch import nn

import randprune as rp

Conv = nn.Conv2d


def two_layers() -> nn.Module:
    return nn.Sequential(
        OrderedDict(first=Conv(3, 8, 3), act=nn.ReLU(), second=Conv(8, 6, 3), end=classifier(6))
    )


class Pair(NamedTuple):
    coarse: torch.Tensor
    fine: torch.Tensor


class TestInputs:
    def test_several(self):
        net = Net(
            lambda s, x, z: s.end(s.a(x) + s.b(z)[:, :, None, None]),
            a=Conv(3, 6, 1),
            b=nn.Linear(4, 6),
            end=classifier(6),
        )
        assert widths_of(check(net, (image(), drawn(2, 4)))) == {"a": 6}

    def test_a_dict_of_tensors(self):
        net = Net(lambda s, x: s.end(s.a(x["image"]).relu()), a=Conv(3, 6, 1), end=classifier(6))
        inputs = ({"image": image()},)
        assert widths_of(check(net, inputs)) == {"a": 6}
        with pytest.raises(rp.InvalidInputError, match="inputs must be tensors"):
            rp.trace(net, inputs, as_graph=True)

    def test_integers_and_plain_numbers(self):
        net = Net(
            lambda s, x, i, factor: s.end(s.a(x) * s.e(i)[:, :, None, None] * factor),
            a=Conv(3, 6, 1),
            e=nn.Embedding(5, 6),
            end=classifier(6),
        )
        assert widths_of(check(net, (image(), torch.tensor([1, 4]), 2.0))) == {"a": 6}

    @pytest.mark.parametrize("batch", [1, 2, 5])
    def test_costs_count_the_whole_batch(self, batch):
        space = check(two_layers(), image(batch))
        assert space.cost("macs").dense == batch * (36 * 27 * 8 + 16 * 72 * 6 + 18)

    def test_without_a_batch_axis(self):
        net = nn.Sequential(Conv(3, 6, 3), nn.ReLU(), Conv(6, 4, 3))
        assert widths_of(check(net, drawn(3, 8, 8))) == {"0": 6}

    def test_a_batch_size_that_is_a_constant_of_the_forward(self):
        net = Net(lambda s, x: s.f(s.a(x).view(2, -1)), a=Conv(3, 6, 3), f=nn.Linear(216, 4))
        assert widths_of(check(net, image())) == {"a": 6}

    def test_an_image_that_is_not_square(self):
        assert widths_of(check(two_layers(), drawn(1, 3, 7, 12))) == {"first": 8, "second": 6}

    def test_double_precision(self):
        check(two_layers().double(), image().double())

    def test_channels_last_memory(self):
        net = two_layers().to(memory_format=torch.channels_last)
        check(net, image().to(memory_format=torch.channels_last))

    @pytest.mark.parametrize("wrong", [None, [], "image", {"x": 1}, (1, 2)])
    def test_no_tensor_at_all(self, wrong):
        with pytest.raises(rp.InvalidInputError, match="must be a tensor, or a tuple"):
            rp.trace(two_layers(), wrong)

    def test_wrong_shape(self):
        with pytest.raises(rp.InvalidInputError, match=r"does not run on .*\(1, 4, 8, 8\)"):
            rp.trace(two_layers(), image(1, 4))


class TestOutputs:
    def run(self, s, x):
        y = F.relu(s.a(x))
        return s.o(y), s.p(F.relu(s.b(y)))

    def layers(self):
        return {"a": Conv(3, 6, 1), "b": Conv(6, 5, 1), "o": Conv(6, 2, 1), "p": Conv(5, 1, 1)}

    @pytest.mark.parametrize(
        "form",
        [
            tuple,
            list,
            lambda pair: {"o": pair[0], "p": pair[1]},
            lambda pair: OrderedDict(zip("op", pair, strict=True)),
            lambda pair: Pair(*pair),
            lambda pair: (pair[0], [{"inner": pair[1]}]),
            lambda pair: (pair[0], None, pair[1]),
        ],
        ids=["tuple", "list", "dict", "ordered dict", "named tuple", "nested", "with None"],
    )
    def test_forms(self, form):
        net = Net(lambda s, x: form(self.run(s, x)), **self.layers())
        assert widths_of(check(net, image(), train=False)) == {"a": 6, "b": 5}

    def test_features_that_are_also_an_output_are_frozen(self):
        def run(s, x):
            y = F.relu(s.a(x))
            return s.end(y), y

        net = Net(run, a=Conv(3, 6, 1), end=classifier(6))
        space = check(net, image())
        assert widths_of(space) == {}
        assert reasons_of(space)["a"] == "it defines the network's output"

    def test_a_layer_that_is_never_used(self):
        net = Net(lambda s, x: s.end(s.a(x)), a=Conv(3, 6, 1), unused=Conv(6, 7, 1))
        net.end = classifier(6)
        space = check(net, image())
        assert widths_of(space) == {"a": 6}
        # It stays, and its parameters count.
        assert space.cost("params").dense == sum(p.numel() for p in net.parameters())

    def test_a_network_without_anything_to_cut(self):
        space = check(nn.Sequential(Conv(3, 4, 3), nn.ReLU()), image(), seeds=(0,))
        assert len(space.groups) == 0
        assert space.cost("macs")(np.empty(0, dtype=np.int64)) == space.cost("macs").dense

    def test_widths_of_one(self):
        net = nn.Sequential(Conv(3, 1, 1), nn.ReLU(), Conv(1, 5, 1), classifier(5))
        check(net, image())


class TestCombined:
    """Networks of several blocks, as people write them."""

    def test_u_net(self):
        def run(s, x):
            a = F.relu(s.a(x))
            b = F.relu(s.b(F.max_pool2d(a, 2)))
            wide = F.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False)
            return s.o(F.relu(s.c(torch.cat([a, s.up(b), wide], 1))))

        net = Net(
            run,
            a=Conv(3, 4, 3, padding=1),
            b=Conv(4, 6, 3, padding=1),
            up=nn.ConvTranspose2d(6, 5, 2, stride=2),
            c=Conv(15, 4, 1),
            o=Conv(4, 2, 1),
        )
        assert widths_of(check(net, image())) == {"a": 4, "b": 6, "up": 5, "c": 4}

    def test_feature_pyramid(self):
        def run(s, x):
            a = F.relu(s.a(x))
            b = F.relu(s.b(a))
            top = s.lateral_b(b)
            down = s.lateral_a(a) + F.interpolate(top, size=a.shape[-2:], mode="nearest")
            return {"top": s.o(top), "down": s.o(down)}

        net = Net(
            run,
            a=Conv(3, 4, 3, padding=1, stride=2),
            b=Conv(4, 6, 3, padding=1, stride=2),
            lateral_a=Conv(4, 5, 1),
            lateral_b=Conv(6, 5, 1),
            o=Conv(5, 2, 3, padding=1),
        )
        assert widths_of(check(net, image())) == {"a": 4, "b": 6, "lateral_b": 5}

    def test_generator(self):
        """DCGAN: a latent vector, views and transposed convolutions."""
        net = Net(
            lambda s, z: s.net(s.start(z).view(z.shape[0], -1, 4, 4)),
            start=nn.Linear(7, 96),
            net=nn.Sequential(
                nn.BatchNorm2d(6),
                nn.ReLU(True),
                nn.ConvTranspose2d(6, 5, 4, 2, 1, bias=False),
                nn.BatchNorm2d(5),
                nn.ReLU(),
                nn.ConvTranspose2d(5, 3, 4, 2, 1),
                nn.Tanh(),
            ),
        )
        space = check(net, drawn(2, 7))
        assert widths_of(space) == {"start": 6, "net.2": 5}
        assert space.group("start").slots[0].index.shape == (6, 16)

    def test_super_resolution(self):
        net = nn.Sequential(
            Conv(1, 6, 5, padding=2), nn.Tanh(), Conv(6, 4, 3, padding=1), nn.Tanh()
        )
        net.extend([Conv(4, 9, 3, padding=1), nn.PixelShuffle(3)])
        assert widths_of(check(net, image(channels=1))) == {"0": 6, "2": 4}

    def test_dense_blocks(self):
        def run(s, x):
            features = [s.stem(x)]
            for norm, conv in zip(s.norms, s.convs, strict=True):
                features.append(conv(F.relu(norm(torch.cat(features, 1)))))
            return s.end(torch.cat(features, 1))

        net = Net(
            run,
            stem=Conv(3, 6, 3),
            norms=nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3)),
            convs=nn.ModuleList(Conv(6 + 4 * i, 4, 3, padding=1) for i in range(3)),
            end=classifier(18),
        )
        space = check(net, image())
        assert widths_of(space) == {"stem": 6, "convs.0": 4, "convs.1": 4, "convs.2": 4}

    def test_two_stages_of_inverted_residuals(self):
        def block(c_in, c_mid, c_out):
            return nn.Sequential(
                Conv(c_in, c_mid, 1, bias=False),
                nn.BatchNorm2d(c_mid),
                nn.ReLU6(),
                Conv(c_mid, c_mid, 3, padding=1, groups=c_mid, bias=False),
                nn.BatchNorm2d(c_mid),
                nn.ReLU6(),
                Conv(c_mid, c_out, 1, bias=False),
                nn.BatchNorm2d(c_out),
            )

        def run(s, x):
            y = s.one(s.stem(x))
            return s.end(y + s.two(y))

        net = Net(run, stem=Conv(3, 4, 3), one=block(4, 12, 6), two=block(6, 10, 6))
        net.end = classifier(6)
        space = check(net, image())
        assert widths_of(space) == {"stem": 4, "one.0": 12, "one.6": 6, "two.0": 10}


class TestFreeze:
    def test_by_name(self):
        space = check(two_layers(), image(), freeze=("first",))
        assert widths_of(space) == {"second": 6}
        assert reasons_of(space)["first"] == "named in freeze (first)"

    def test_by_pattern_and_by_container(self):
        net = nn.ModuleDict({"body": two_layers()})
        net = Net(lambda s, x: s.m["body"](x), m=net)
        assert widths_of(rp.trace(net, image(), freeze=["m.body"])) == {}
        assert widths_of(rp.trace(net, image(), freeze=["*.fir*"])) == {"m.body.second": 6}
        assert widths_of(rp.trace(net, image(), freeze="*.second")) == {"m.body.first": 8}

    def test_freezes_what_is_coupled(self):
        def run(s, x):
            return s.end(s.a(x) + s.b(x))

        net = Net(run, a=Conv(3, 6, 1), b=Conv(3, 6, 1), end=classifier(6))
        assert widths_of(check(net, image(), freeze=("b",))) == {}

    def test_everything(self):
        assert widths_of(check(two_layers(), image(), freeze=("*",), seeds=(0,))) == {}

    def test_unknown_name(self):
        with pytest.raises(rp.InvalidInputError, match=r"'layer9\.\*' matches none.*first"):
            rp.trace(two_layers(), image(), freeze=("first", "layer9.*"))

    def test_unknown_kind_to_allow(self):
        with pytest.raises(rp.InvalidInputError, match=r"'allow' parameter.*'layernorm'"):
            rp.trace(two_layers(), image(), allow=("layernorm",))


class TestUnknownOperators:
    """An operator without a rule freezes what it touches, and is named."""

    def net(self):
        spectrum = Net(lambda s, x: torch.fft.rfft2(x).abs())
        net = Net(lambda s, x: s.end(s.b(s.spectrum(s.a(x)))), a=Conv(3, 6, 1), b=Conv(6, 4, 1))
        net.spectrum, net.end = spectrum, classifier(4)
        return net

    def test_frozen_with_its_name(self):
        space = check(self.net(), image(), train=False)
        assert widths_of(space) == {"b": 4}
        assert reasons_of(space)["a"].startswith("an operator without a rule in spectrum (")

    def test_strict_names_operator_and_module(self):
        with pytest.raises(rp.UnsupportedModelError, match=r"No rule for spectrum \(\w*fft\w*\)"):
            rp.trace(self.net(), image(), strict=True)

    def test_strict_is_silent_where_all_is_known(self):
        assert widths_of(rp.trace(two_layers(), image(), strict=True)) == {"first": 8, "second": 6}

    @pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
    def test_recurrent_layers_keep_their_sizes(self, layer):
        net = Net(
            lambda s, x: s.o(s.l(s.d(F.relu(s.c(x))).transpose(1, 2))[0]),
            c=nn.Conv1d(2, 6, 3),
            d=nn.Conv1d(6, 5, 1),
            l=layer(5, 4, batch_first=True),
            o=nn.Linear(4, 2),
        )
        space = check(net, drawn(2, 2, 9))
        assert widths_of(space) == {"c": 6}
        assert "d" in reasons_of(space)


class Careless(nn.Module):
    """Overrides `train` as much published code does: without returning itself."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.end = Conv(3, 6, 1), Conv(6, 8, 1), classifier(8)

    def train(self, mode=True):
        super().train(mode)

    def forward(self, x):
        y = self.a(x).view(-1, 6, 8, 8)  # a constant, so that the trial looks at submodules
        return self.end(self.b(y))


def test_a_train_method_that_returns_nothing():
    net = nn.Sequential(Careless(), nn.ReLU())
    assert widths_of(check(net, image())) == {"0.b": 8}


class TestRefusals:
    def test_a_tensor_as_large_as_values_say(self):
        net = Net(lambda s, x: s.end(s.a(x)) + x[x > 0].sum(), a=Conv(3, 4, 1), end=classifier(4))
        with pytest.raises(rp.UnsupportedModelError, match=r"the network \(index\) gives a tensor"):
            rp.trace(net, image())

    def test_a_forward_that_branches_on_values(self):
        net = Net(lambda s, x: s.a(x) if x.sum() > 0 else s.b(x), a=Conv(3, 4, 1), b=Conv(3, 4, 1))
        with pytest.raises(rp.UnsupportedModelError, match="cannot be exported"):
            rp.trace(net, image())

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, value):
        net = two_layers()
        with torch.no_grad():
            net.second.weight[0, 0, 0, 0] = value
        with pytest.raises(rp.WeightsError, match=r"second\.weight holds 1 values"):
            rp.trace(net, image())


class TestTrial:
    def test_reasons_quote_the_line_of_the_forward(self):
        net = Net(lambda s, x: s.f(s.a(x).reshape(-1, 96)), a=Conv(3, 6, 5), f=nn.Linear(96, 2))
        space = rp.trace(net, image())
        assert "s.a(x).reshape(-1, 96)" in reasons_of(space)["a"]
        assert str(Path(__file__).parent) not in json.dumps(space.to_json())

    def test_the_line_is_quoted_from_any_folder(self, tmp_path):
        """Also from a clone called randprune, with a part called torch."""
        source = tmp_path / "randprune" / "torch" / "mine.py"
        source.parent.mkdir(parents=True)
        source.write_text(
            "from torch import nn\n\n\n"
            "class Mine(nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        self.a, self.f = nn.Conv2d(3, 6, 5), nn.Linear(96, 2)\n\n"
            "    def forward(self, x):\n"
            "        return self.f(self.a(x).reshape(-1, 96))\n"
        )
        spec = importlib.util.spec_from_file_location("mine", source)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        space = rp.trace(module.Mine(), image())
        assert "`return self.f(self.a(x).reshape(-1, 96))`" in reasons_of(space)["a"]

    def test_one_wrong_group_leaves_the_others(self):
        def run(s, x):
            y = F.relu(s.a(x))
            return s.f(F.relu(s.c(F.relu(s.b(y)))).view(-1, 5 * 64))

        net = Net(run, a=Conv(3, 4, 1), b=Conv(4, 6, 1), c=Conv(6, 5, 1), f=nn.Linear(320, 2))
        assert widths_of(check(net, image())) == {"a": 4, "b": 6}

    def test_many_wrong_groups(self):
        """The same constant in every block: all are found, and nothing else."""

        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.wide, self.narrow = Conv(4, 6, 1), Conv(3, 4, 1)
                self.free, self.back = Conv(4, 5, 1), Conv(5, 4, 1)

            def forward(self, x):
                x = x + self.narrow(F.relu(self.wide(x))[:, :3])
                return x + self.back(F.relu(self.free(x)))

        net = nn.Sequential(Conv(3, 4, 1), *(Block() for _ in range(5)), classifier(4))
        space = check(net, image())
        assert widths_of(space) == {"0": 4, **{f"{i}.free": 5 for i in range(1, 6)}}

    def test_a_silent_change_is_found_by_its_numbers(self):
        """Cut to three channels, the first three are still there - but other ones."""
        net = Net(lambda s, x: s.end(s.a(x)[:, :3]), a=Conv(3, 9, 1), end=classifier(3))
        assert widths_of(rp.trace(net, image())) == {}

    def test_without_a_trial_labels_alone_speak(self):
        net = Net(lambda s, x: s.f(s.a(x).view(-1, 96)), a=Conv(3, 6, 5), f=nn.Linear(96, 2))
        assert widths_of(rp.trace(net, image(), trial=False)) == {"a": 6}


class TestDeterminism:
    SCRIPT = """
import json, sys
import torch
sys.path.insert(0, sys.argv[1])
from test_trace_network import TestCombined, two_layers
from exactness import image
import randprune as rp
torch.manual_seed(int(sys.argv[2]))
space = rp.trace(two_layers(), image())
print(json.dumps(space.to_json()))
"""

    def test_the_same_space_in_another_process(self):
        """Other weights, another process, another hash seed: the same groups and fingerprint."""
        here = rp.trace(two_layers(), image())
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", self.SCRIPT, str(Path(__file__).parent), "7"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "1"},
        )
        there = json.loads(done.stdout)
        assert there == json.loads(json.dumps(here.to_json()))
        assert there["fingerprint"] == here.fingerprint

    def test_other_architectures_have_other_fingerprints(self):
        base = rp.trace(two_layers(), image()).fingerprint
        wider = nn.Sequential(
            OrderedDict(first=Conv(3, 9, 3), act=nn.ReLU(), second=Conv(9, 6, 3), end=classifier(6))
        )
        assert rp.trace(wider, image()).fingerprint != base
        assert rp.trace(two_layers(), image(), freeze=("first",)).fingerprint != base
        assert rp.trace(two_layers(), image(3)).fingerprint == base

    def test_tracing_draws_no_random_numbers(self):
        net, generator = two_layers(), torch.get_rng_state()
        rp.trace(net, image())
        assert torch.equal(torch.get_rng_state(), generator)

    def test_gradients_hooks_and_caches_of_the_caller_survive(self):
        net = two_layers()
        net(image()).sum().backward()
        gradients = {n: p.grad.clone() for n, p in net.named_parameters()}
        calls = []
        net.first.register_forward_hook(lambda *a: calls.append(1))
        before = state_bytes(net)
        space = rp.trace(net, image())
        selection = rp.Selection((np.array([0, 1]), np.array([2])))
        rp.verify(net, rp.cut(net, space, selection), space, selection, image())
        assert state_bytes(net) == before
        assert all(torch.equal(p.grad, gradients[n]) for n, p in net.named_parameters())
        assert all(p.requires_grad for p in net.parameters())


class TestTrainingOnly:
    """Parts of a network that run only in training, such as auxiliary classifiers."""

    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = Conv(3, 6, 3), Conv(6, 5, 3)
            self.side = nn.Sequential(Conv(6, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), classifier(4))
            self.end = classifier(5)

        def forward(self, x):
            y = F.relu(self.a(x))
            out = self.end(F.relu(self.b(y)))
            return (out, self.side(y)) if self.training else out

    def test_are_cut_along(self):
        net = self.Auxiliary()
        # `check` trains the cut network: its side branch must read what is left of `a`.
        space = check(net, image())
        assert widths_of(space)["a"] == 6
        slots = {(s.tensor, s.dim) for s in space.group("a").slots}
        assert ("side.0.weight", 1) in slots
        selection = rp.Selection(tuple(np.arange(2) for _ in space.groups))
        small = rp.cut(net.train(), space, selection)
        assert [t.shape for t in small(image())] == [(2, 3), (2, 3)]
        assert small.side[0].in_channels == 2

    def test_cost_what_the_evaluation_costs(self):
        net = self.Auxiliary()
        space = rp.trace(net, image(1))
        assert space.cost("macs").dense == 36 * 27 * 6 + 16 * 54 * 5 + 15


class PartOfItsOwnWidth(nn.Module):
    """Clamps a part of its channels, worked out from its width: a cut network clamps others."""

    def __init__(self, part):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 2, 1)
        self.part = part

    def forward(self, x):
        x = self.a(x).clone()
        x[:, : self.part(x.shape[1])].clamp_(min=0)
        return self.b(x)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "part",
    [lambda n: (n + 1) // 2, lambda n: n - 1, lambda n: 2 * n // 3],
    ids=["half", "all but one", "two thirds"],
)
def test_a_bound_computed_from_the_own_width_is_seen_in_narrow_groups(part, seed):
    torch.manual_seed(seed)
    network = PartOfItsOwnWidth(part)
    space = rp.trace(network, torch.randn(2, 3, 8, 8))
    assert len(space) == 0
    assert any("changes what the forward computes" in f.reason for f in space.frozen)
