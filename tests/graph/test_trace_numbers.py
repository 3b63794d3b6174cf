"""Whole numbers that a module keeps for its forward pass are set with the cut."""

from __future__ import annotations

import json

import pytest
import torch
from exactness import check, classifier, drawn, fill_randomly, random_kept, widths_of
from torch import nn

import randprune as rp

Conv = nn.Conv2d


class SplitBlock(nn.Module):
    """Splits its channels by a number of its own, as C2f's `forward_split` does."""

    def __init__(self, c=6):
        super().__init__()
        self.c = c
        self.other = c  # equal by chance: it must stay
        self.first = Conv(4, 2 * c, 1)
        self.inner = nn.Sequential(Conv(c, 5, 3, padding=1), nn.ReLU(), Conv(5, c, 3, padding=1))
        self.last = Conv(3 * c, 7, 1)

    def forward(self, x):
        a, b = self.first(x).split((self.c, self.c), 1)
        if self.other != 6:
            raise ValueError("the other number was changed")
        return self.last(torch.cat([a, b, self.inner(b).relu()], 1))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Conv(3, 4, 3)
        self.block = SplitBlock()
        self.end = classifier(7)

    def forward(self, x):
        return self.end(self.block(self.stem(x).relu()).relu())


class TestNumbers:
    def test_the_attribute_is_set_with_the_cut(self):
        net = Network()
        space = check(net, drawn(2, 3, 8, 8))
        assert widths_of(space) == {
            "stem": 4,
            "block.first": 6,  # both halves lose the same channels
            "block.inner.0": 5,
            "block.inner.2": 6,
            "block.last": 7,
        }
        (slot,) = space.group("block.first").numbers
        assert (slot.tensor, slot.index.shape) == ("block.c", (6, 1))
        assert rp.Space.from_json(json.dumps(space.to_json())).to_json() == space.to_json()

    def test_it_counts_each_channel_as_often_as_it_lies_there(self):
        class Doubled(SplitBlock):
            def __init__(self):
                super().__init__()
                self.both = 2 * self.c

            def forward(self, x):
                x = self.first(x)
                if x.shape[1] != self.both:
                    raise ValueError(f"{self.both} channels expected")
                a, b = x.chunk(2, 1)
                return self.last(torch.cat([a, b, self.inner(b).relu()], 1))

        net = nn.Sequential(Doubled(), nn.ReLU(), classifier(7))
        space = check(net, drawn(2, 4, 6, 6))
        (slot,) = space.group("0.first").numbers
        assert (slot.tensor, slot.index.shape) == ("0.both", (6, 2))
        small = rp.cut(net, space, random_kept(space, 0))
        assert small[0].both == small[0].first.out_channels

    def test_saved_loaded_cut_again_and_widened(self, tmp_path):
        net, x = fill_randomly(Network()).eval(), drawn(2, 3, 8, 8)
        space = rp.trace(net, x)
        small = rp.cut(net, space, random_kept(space, 2))
        kept = small.block.c
        assert 1 <= kept < 6
        assert small.block.other == 6
        assert net.block.c == 6
        rp.save(small, tmp_path / "small.safetensors")
        again = rp.load(tmp_path / "small.safetensors", model=Network)
        assert again.block.c == kept
        assert torch.equal(small(x), again(x))
        assert rp.widen(net, space, 2.0).block.c == 12
        space = rp.trace(small, x)
        smaller = rp.cut(small, space, random_kept(space, 0))
        assert smaller.block.c == smaller.block.first.out_channels // 2

    def test_a_literal_stays_frozen(self):
        class Literal(SplitBlock):
            def forward(self, x):
                a, b = self.first(x).split((6, 6), 1)
                return self.last(torch.cat([a, b, self.inner(b).relu()], 1))

        space = rp.trace(nn.Sequential(Literal(), nn.ReLU(), classifier(7)), drawn(2, 4, 6, 6))
        assert "0.first" not in widths_of(space)
        assert not any(group.numbers for group in space.groups)

    @pytest.mark.parametrize("name", ["block.first.groups", "block.training", "block.missing", "c"])
    def test_a_forged_number_is_refused(self, name, tmp_path):
        net, x = Network(), drawn(2, 3, 8, 8)
        space = rp.trace(net, x)
        document = space.to_json()
        for group in document["groups"]:
            for slot in group.get("numbers", ()):
                slot["tensor"] = name
        forged = rp.Space.from_json(document)
        small = rp.cut(net, space, random_kept(space, 2))
        plan = small._randprune_plan
        object.__setattr__(plan.steps[0], "space", forged)
        rp.save(small, tmp_path / "forged.safetensors")
        with pytest.raises(rp.ArtifactError, match="which cannot be"):
            rp.load(tmp_path / "forged.safetensors", model=Network)
