"""Parts of networks that cannot be exported as a whole, and outputs that do not count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exactness import counted_macs, drawn, fill_randomly, random_kept, reasons_of
from torch import nn

import randprune as rp
from randprune.graph.within import parts_of

Conv = nn.Conv2d


class Backbone(nn.Module):
    """Two feature maps, by name."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(Conv(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.mid = Conv(8, 10, 3, padding=1)
        self.deep = Conv(10, 12, 3, padding=1, stride=2)

    def forward(self, x):
        mid = self.mid(self.stem(x)).relu()
        return {"fine": mid, "coarse": self.deep(mid)}


class Head(nn.Module):
    """One convolution for all maps of equal width, as detectors have."""

    def __init__(self, width):
        super().__init__()
        self.hidden = Conv(width, 9, 3, padding=1)
        self.out = Conv(9, 5, 1)

    def forward(self, maps):
        return [self.out(self.hidden(m).relu()) for m in maps]


class Detector(nn.Module):
    """Chooses by value, like a detector: torch.export cannot follow it as a whole."""

    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.head = Head(12)
        self.second = nn.Sequential(nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, 3))

    def forward(self, images, scale=1.0):
        maps = self.backbone(torch.stack(images) * scale)
        boxes = self.head([maps["coarse"]])[0].flatten(2)
        best = boxes.amax(1)
        if float(best.detach().max()) < -1e6:
            return {"boxes": boxes[..., :0]}
        picked = maps["fine"].flatten(2)[..., : int((best > best.mean()).sum()) + 1].mean(2)
        return {"boxes": boxes, "classes": self.second(picked)}


def detector() -> Detector:
    return fill_randomly(Detector()).eval()


def images() -> tuple[list[torch.Tensor]]:
    return ([drawn(3, 16, 16), drawn(3, 16, 16)],)


class TestWithin:
    PARTS = ("backbone", "head", "second")

    def test_the_whole_cannot_be_exported(self):
        with pytest.raises(rp.UnsupportedModelError, match="cannot be"):
            rp.trace(detector(), images())

    def test_parts_shrink_together_where_one_alone_reads_the_other(self):
        net = detector()
        space = rp.trace(net, images(), within=self.PARTS)
        widths = {group.name: group.width for group in space.groups}
        assert widths == {
            "backbone.stem.0": 8,
            "backbone.deep": 12,  # read by the head alone
            "head.hidden": 9,
            "second.0": 7,
        }
        reasons = reasons_of(space)
        assert reasons["backbone.mid"] == "leaves backbone and is read outside of it (view)"
        assert reasons["head.out"] == "leaves head and is read outside of it (view)"
        assert reasons["second.2"] == "it defines the network's output"
        assert space.within == self.PARTS
        assert [slot.tensor for slot in space.group("backbone.deep").with_role("in")] == [
            "head.hidden.weight"
        ]

    @pytest.mark.parametrize("seed", range(4))
    def test_cut_is_exact_and_costs_what_it_says(self, seed):
        net = detector()
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        space = rp.trace(net, images(), within=self.PARTS)
        selection = random_kept(space, seed)
        small = rp.cut(net, space, selection)
        assert rp.verify(net, small, space, selection, images()) < 1e-9
        assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
        parts = parts_of(net, images(), self.PARTS)
        macs = counted_macs(parts.of(small), parts.inputs)
        assert float(space.cost("macs")(selection.widths)) == macs
        held = sum(p.numel() for p in small.parameters())
        assert float(space.cost("params")(selection.widths)) == held
        assert set(small(*images())) == {"boxes", "classes"}

    def test_one_part_alone_keeps_what_leaves_it(self):
        space = rp.trace(detector(), images(), within="backbone")
        assert [group.name for group in space.groups] == ["backbone.stem.0"]
        assert "read outside of it (convolution)" in reasons_of(space)["backbone.deep"]

    def test_saved_and_loaded(self, tmp_path):
        net = detector()
        space = rp.trace(net, images(), within=self.PARTS)
        small = rp.cut(net, space, random_kept(space, 2))
        rp.save(small, tmp_path / "small.safetensors")
        again = rp.load(tmp_path / "small.safetensors", model=Detector)
        for name, value in small(*images()).items():
            assert torch.equal(value, again(*images())[name])
        assert rp.Space.from_json(space.to_json()).within == self.PARTS

    def test_a_wrong_cut_is_found(self):
        net = detector()
        space = rp.trace(net, images(), within=self.PARTS)
        small = rp.cut(net, space, random_kept(space, 2))
        with torch.no_grad():
            small.head.hidden.weight[0] += 1
        with pytest.raises(rp.VerificationError, match=r"head\.hidden\.weight"):
            rp.verify(net, small, space, random_kept(space, 2), images())

    def test_called_twice_counts_twice(self):
        class Twice(Detector):
            def forward(self, images):
                maps = self.backbone(torch.stack(images))
                first, second = self.head([maps["coarse"]]), self.head([maps["coarse"]])
                return {"boxes": first[0] + second[0]} if float(first[0].detach().sum()) else {}

        net = fill_randomly(Twice()).eval()
        space = rp.trace(net, images(), within=("backbone", "head"))
        selection = random_kept(space, 3)
        small = rp.cut(net, space, selection)
        assert rp.verify(net, small, space, selection, images()) < 1e-9
        parts = parts_of(net, images(), space.within)
        assert float(space.cost("macs")(selection.widths)) == counted_macs(
            parts.of(small), parts.inputs
        )

    def test_tensors_that_the_rest_has_too_stay(self):
        net = detector()
        net.twin = Conv(8, 10, 3, padding=1)
        net.twin.weight = net.backbone.mid.weight
        space = rp.trace(net, images(), within="backbone")
        assert not space.groups  # the stem's channels lie along the shared weight's inputs
        assert "shared with twin.weight" in reasons_of(space)["backbone.stem.0"]

    def test_tensors_that_are_read_outside_stay(self):
        class Reads(Detector):
            def forward(self, images):
                out = super().forward(images)
                return {**out, "norm": self.backbone.stem[0].weight.sum()}

        space = rp.trace(fill_randomly(Reads()).eval(), images(), within="backbone")
        assert reasons_of(space)["backbone.stem.0"] == "read outside of backbone"

    @pytest.mark.parametrize(
        ("within", "message"),
        [
            ("neck", "has no 'neck'; it has backbone, head, second"),
            (("backbone", "backbone.mid"), "names 'backbone.mid' twice: it lies in 'backbone'"),
            (("head", "head"), "names 'head' twice"),
            ("backbone.unused", "does not call 'backbone.unused' as a module"),
            ((3,), "must be names"),
        ],
    )
    def test_wrong_names(self, within, message):
        net = detector()
        net.backbone.unused = Conv(3, 4, 1)
        with pytest.raises(rp.InvalidInputError, match=message):
            rp.trace(net, images(), within=within)

    def test_excludes_other_views(self):
        for other in ({"as_graph": True}, {"outputs": lambda outputs: outputs["boxes"]}):
            with pytest.raises(rp.InvalidInputError, match="exclude each other"):
                rp.trace(detector(), images(), within="backbone", **other)

    def test_objects_cannot_be_followed(self):
        class Box:
            def __init__(self, tensor):
                self.tensor = tensor

        class Wraps(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = Inner()

            def forward(self, x):
                return self.inner(Box(x))

        class Inner(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = Conv(3, 4, 1)

            def forward(self, box):
                return self.conv(box.tensor)

        with pytest.raises(rp.UnsupportedModelError, match="'inner' takes a Box"):
            rp.trace(Wraps(), drawn(1, 3, 8, 8), within="inner")

    def test_a_failing_network_says_so(self):
        with pytest.raises(rp.InvalidInputError, match="does not run on the example inputs"):
            rp.trace(detector(), ([drawn(4, 16, 16)],), within="backbone")

    def test_a_network_that_reads_the_number_of_channels_outside(self):
        class Counts(Detector):
            def forward(self, images):
                maps = self.backbone(torch.stack(images))
                boxes = self.head([maps["coarse"]])[0]
                if maps["coarse"].shape[1] != 12:
                    raise ValueError("12 channels expected")
                return boxes if float(boxes.detach().sum()) else boxes * 2

        net = fill_randomly(Counts()).eval()
        space = rp.trace(net, images(), within=("backbone", "head"))
        selection = random_kept(space, 2, high=0.8)
        small = rp.cut(net, space, selection)
        with pytest.raises(rp.VerificationError, match="does not run as a whole: 12 channels"):
            rp.verify(net, small, space, selection, images())


class WithMaps(nn.Module):
    """Returns what it detects and, as some detectors do, the maps that it was computed from."""

    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.end = Conv(12, 4, 1)

    def forward(self, x):
        maps = self.backbone(x)
        return self.end(maps["coarse"]), {"maps": list(maps.values()), "raw": x.mean(1)}


class TestOutputs:
    @staticmethod
    def read(outputs):
        return outputs[0], outputs[1]["raw"]

    def test_only_what_counts_stays(self):
        net, x = fill_randomly(WithMaps()).eval(), drawn(2, 3, 8, 8)
        every = rp.trace(net, x)
        assert [group.name for group in every.groups] == ["backbone.stem.0"]
        space = rp.trace(net, x, outputs=self.read)
        assert [g.name for g in space.groups] == [
            "backbone.stem.0",
            "backbone.mid",
            "backbone.deep",
        ]
        assert [frozen.layer for frozen in space.frozen] == ["end"]
        assert space.outputs == (0, 3)
        assert rp.Space.from_json(space.to_json()).outputs == (0, 3)

    @pytest.mark.parametrize("seed", range(3))
    def test_exact_and_reloaded(self, seed, tmp_path):
        net, x = fill_randomly(WithMaps()).eval(), drawn(2, 3, 8, 8)
        space = rp.trace(net, x, outputs=self.read)
        selection = random_kept(space, seed)
        small = rp.cut(net, space, selection)
        assert rp.verify(net, small, space, selection, x) < 1e-9
        assert float(space.cost("macs")(selection.widths)) == counted_macs(small, x)
        rp.save(small, tmp_path / "small.safetensors")
        again = rp.load(tmp_path / "small.safetensors", model=WithMaps)
        assert torch.equal(small(x)[0], again(x)[0])

    def test_in_an_emitted_graph(self):
        net, x = fill_randomly(WithMaps()).eval(), drawn(2, 3, 8, 8)
        space = rp.trace(net, x, outputs=self.read, as_graph=True)
        assert len(space) == 3
        selection = random_kept(space, 2)
        assert rp.verify(net, rp.cut(net, space, selection), space, selection, x) < 1e-9

    def test_a_cut_that_changes_what_counts_is_found(self):
        net, x = fill_randomly(WithMaps()).eval(), drawn(2, 3, 8, 8)
        space = rp.trace(net, x, outputs=self.read)
        selection = random_kept(space, 2)
        small = rp.cut(net, space, selection)
        small.end.register_forward_hook(lambda module, inputs, output: output + 1)
        with pytest.raises(rp.VerificationError, match="differs from the masked dense one"):
            rp.verify(net, small, space, selection, x)

    @pytest.mark.parametrize(
        ("choose", "message"),
        [
            (lambda outputs: outputs[7], "It failed: tuple index out of range"),
            (lambda outputs: outputs[0] * 2, "It failed: unsupported operand"),
            (lambda outputs: (), r"It returned \[\] instead"),
            (lambda outputs: 1, r"It returned \[1\] instead"),
        ],
    )
    def test_wrong_choices(self, choose, message):
        with pytest.raises(rp.InvalidInputError, match=message):
            rp.trace(WithMaps(), drawn(2, 3, 8, 8), outputs=choose)

    def test_what_only_training_returns_stays(self):
        class Auxiliary(WithMaps):
            def __init__(self):
                super().__init__()
                self.extra = Conv(10, 3, 1)

            def forward(self, x):
                found, rest = super().forward(x)
                return [found, self.extra(rest["maps"][0])] if self.training else (found, rest)

        net, x = fill_randomly(Auxiliary()).eval(), drawn(2, 3, 8, 8)
        space = rp.trace(net, x, outputs=self.read)
        assert {frozen.layer for frozen in space.frozen} == {"end", "extra"}
        assert np.array_equal(space.widths, [8, 10, 12])
        selection = random_kept(space, 2)
        small = rp.cut(net, space, selection)
        small.train()(x)[1].sum().backward()
