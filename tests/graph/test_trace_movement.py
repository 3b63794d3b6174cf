"""Views, shuffles, splits, concatenations and pads: labels move as the values do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exactness import Net, check, classifier, drawn, image, reasons_of, slots_of, widths_of
from torch import nn

import randprune as rp

Conv = nn.Conv2d


def places(space, group, tensor, dim):
    """Positions of every channel of a group on one axis."""
    slot = next(s for s in space.group(group).slots if (s.tensor, s.dim) == (tensor, dim))
    return slot.index.tolist()


class TestConcatenation:
    def test_tree(self):
        def run(s, x):
            a = s.a(x)
            b = s.b(a)
            return s.end(torch.cat([a, b, s.c(torch.cat([a, b], 1))], 1))

        net = Net(run, a=Conv(3, 4, 1), b=Conv(4, 6, 1), c=Conv(10, 5, 1), end=classifier(15))
        space = check(net, image())
        assert widths_of(space) == {"a": 4, "b": 6, "c": 5}
        assert places(space, "b", "c.weight", 1) == [[4], [5], [6], [7], [8], [9]]
        assert places(space, "c", "end.2.weight", 1) == [[10], [11], [12], [13], [14]]

    def test_a_tensor_with_itself(self):
        net = Net(lambda s, x: s.end(torch.cat([s.a(x)] * 2, 1)), a=Conv(3, 4, 1))
        net.end = classifier(8)
        assert places(check(net, image()), "a", "end.2.weight", 1)[1] == [1, 5]

    def test_with_the_input_image(self):
        net = Net(lambda s, x: s.end(s.b(torch.cat([x, s.a(x)], 1))), a=Conv(3, 6, 1))
        net.b, net.end = Conv(9, 5, 1), classifier(5)
        space = check(net, image())
        assert widths_of(space) == {"a": 6, "b": 5}
        assert places(space, "a", "b.weight", 1) == [[3], [4], [5], [6], [7], [8]]

    def test_two_poolings_into_one_vector(self):
        def run(s, x):
            y = s.a(x)
            pooled = [F.adaptive_avg_pool2d(y, 1), F.adaptive_max_pool2d(y, 1)]
            return s.f(torch.cat(pooled, 1).flatten(1))

        net = Net(run, a=Conv(3, 6, 1), f=nn.Linear(12, 3))
        assert slots_of(check(net, image()), "a")["f.weight", 1] == ("in", (6, 2))

    def test_pyramid_of_poolings(self):
        def run(s, x):
            y = s.a(x)
            return s.f(torch.cat([F.adaptive_avg_pool2d(y, k).flatten(1) for k in (1, 2)], 1))

        net = Net(run, a=Conv(3, 6, 1), f=nn.Linear(30, 3))
        space = check(net, image())
        assert places(space, "a", "f.weight", 1)[1] == [1, 10, 11, 12, 13]

    def test_along_positions_ties_channels(self):
        net = Net(lambda s, x: s.end(torch.cat([s.a(x), s.b(x)], 2)), a=Conv(3, 6, 1))
        net.b, net.end = Conv(3, 6, 1), classifier(6)
        assert widths_of(check(net, image())) == {"a": 6}

    def test_class_token_and_positions(self):
        def run(s, x):
            y = s.a(x).flatten(2).transpose(1, 2)
            y = torch.cat([s.token.expand(y.shape[0], -1, -1), y], 1) + s.positions
            return s.o(F.relu(s.l(y))[:, 0])

        net = Net(
            run,
            a=Conv(3, 6, 2, stride=2),
            token=nn.Parameter(drawn(1, 1, 6)),
            positions=nn.Parameter(drawn(1, 17, 6)),
            l=nn.Linear(6, 5),
            o=nn.Linear(5, 2),
        )
        space = check(net, image())
        assert widths_of(space) == {"a": 6, "l": 5}
        assert slots_of(space, "a")["token", 2] == ("pass", (6, 1))
        assert slots_of(space, "a")["positions", 2] == ("pass", (6, 1))


class TestPieces:
    def test_chunk(self):
        def run(s, x):
            a, b = s.a(x).chunk(2, 1)
            return s.end(torch.cat([s.b(a), b], 1))

        net = Net(run, a=Conv(3, 8, 1), b=Conv(4, 4, 1), end=classifier(8))
        space = check(net, image())
        # Both halves must stay equally wide for `chunk`; the second one is free otherwise.
        assert widths_of(space) == {"a": 4, "b": 4}
        assert places(space, "a", "a.weight", 0) == [[0, 4], [1, 5], [2, 6], [3, 7]]

    def test_slices_at_half_of_the_width(self):
        def run(s, x):
            y = s.a(x)
            half = y.shape[1] // 2
            return s.end(s.b(y[:, :half]) + y[:, half:])

        net = Net(run, a=Conv(3, 8, 1), b=Conv(4, 4, 1), end=classifier(4))
        assert widths_of(check(net, image())) == {"a": 4}

    def test_a_hierarchy_of_pieces(self):
        """Res2Net: pieces pass through convolutions one after another."""

        def run(s, x):
            first, second, third = s.a(x).chunk(3, 1)
            second = s.b(second)
            return s.end(torch.cat([first, second, s.c(second + third)], 1))

        def conv():
            return Conv(4, 4, 3, padding=1)

        net = Net(run, a=Conv(3, 12, 1), b=conv(), c=conv(), end=classifier(12))
        assert widths_of(check(net, image())) == {"a": 4, "c": 4}

    def test_constant_sizes_are_frozen_by_the_trial(self):
        def run(s, x):
            a, b = torch.split(s.a(x), [3, 5], 1)
            return s.end(torch.cat([s.b(a), b], 1))

        net = Net(run, a=Conv(3, 8, 1), b=Conv(3, 4, 1), end=classifier(9))
        space = check(net, image())
        assert widths_of(space) == {"b": 4}
        assert "its forward holds a constant" in reasons_of(space)["a"]
        assert "torch.split(s.a(x), [3, 5], 1)" in reasons_of(space)["a"]

    def test_a_constant_slice_is_frozen_by_the_trial(self):
        net = Net(lambda s, x: s.end(s.a(x)[:, 2:7]), a=Conv(3, 9, 1), end=classifier(5))
        assert widths_of(check(net, image())) == {}

    def test_one_channel_that_gates_all_is_frozen(self):
        net = Net(lambda s, x: s.end(s.a(x) * s.a(x)[:, 0:1]), a=Conv(3, 4, 1), end=classifier(4))
        assert widths_of(check(net, image())) == {}

    def test_every_other_channel_is_frozen(self):
        net = Net(lambda s, x: s.end(s.a(x)[:, ::2]), a=Conv(3, 8, 1), end=classifier(4))
        assert widths_of(check(net, image())) == {}

    def test_slices_of_positions(self):
        net = Net(lambda s, x: s.end(s.a(x)[:, :, 1:7:2, ::3]), a=Conv(3, 8, 1), end=classifier(8))
        assert widths_of(check(net, image())) == {"a": 8}

    def test_unbind_over_positions_and_over_channels(self):
        def run(s, x):
            rows = s.a(x).unbind(2)
            parts = s.b(x).unbind(1)
            return s.end(sum(rows)[:, :, None]) + parts[0].mean((1, 2))[:, None]

        net = Net(run, a=Conv(3, 4, 1), b=Conv(3, 2, 1), end=classifier(4))
        space = check(net, image())
        assert widths_of(space) == {"a": 4}
        assert "b" in reasons_of(space)


class TestShuffles:
    def shuffled(self, x):
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)

    def test_view_and_transpose(self):
        net = Net(lambda s, x: s.end(s.b(self.shuffled(s.a(x)))), a=Conv(3, 8, 1))
        net.b, net.end = Conv(8, 8, 3, groups=8), classifier(8)
        space = check(net, image())
        assert widths_of(space) == {"a": 4}
        assert places(space, "a", "a.weight", 0) == [[0, 4], [1, 5], [2, 6], [3, 7]]
        assert places(space, "a", "b.weight", 0) == [[0, 1], [2, 3], [4, 5], [6, 7]]

    def test_module(self):
        net = nn.Sequential(Conv(3, 8, 1), nn.ChannelShuffle(4), Conv(8, 6, 1, groups=2))
        net.append(classifier(6))
        # Four shuffled groups of two, read by two groups of four: all tied.
        assert widths_of(check(net, image())) == {"0": 1, "2": 3}

    def test_shuffle_unit(self):
        """ShuffleNet V2: one half passes, the other is convolved, then both interleave."""

        def run(s, x):
            left, right = s.a(x).chunk(2, 1)
            return s.end(self.shuffled(torch.cat([left, s.b(right)], 1)))

        net = Net(run, a=Conv(3, 8, 1), b=Conv(4, 4, 1), end=classifier(8))
        assert widths_of(check(net, image())) == {"a": 4}

    def test_pixel_shuffle(self):
        net = nn.Sequential(Conv(3, 12, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(), Conv(3, 4, 1))
        net.append(classifier(4))
        space = check(net, image())
        assert places(space, "0", "0.weight", 0)[1] == [4, 5, 6, 7]

    def test_pixel_unshuffle(self):
        net = nn.Sequential(Conv(3, 4, 1), nn.PixelUnshuffle(2), nn.ReLU(), Conv(16, 4, 1))
        net.append(classifier(4))
        assert places(check(net, image()), "0", "3.weight", 1)[1] == [4, 5, 6, 7]

    def test_space_to_depth_by_slices(self):
        def run(s, x):
            y = s.a(x)
            parts = [y[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
            return s.end(s.b(torch.cat(parts, 1)))

        net = Net(run, a=Conv(3, 4, 1), b=Conv(16, 6, 1), end=classifier(6))
        assert places(check(net, image()), "a", "b.weight", 1)[1] == [1, 5, 9, 13]

    def test_space_to_depth_by_views(self):
        def run(s, x):
            y = s.a(x)
            b, c, h, w = y.shape
            y = y.view(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
            return s.end(s.b(y.reshape(b, c * 4, h // 2, w // 2)))

        net = Net(run, a=Conv(3, 4, 1), b=Conv(16, 6, 1), end=classifier(6))
        assert places(check(net, image()), "a", "b.weight", 1)[1] == [1, 5, 9, 13]

    def test_windows_leave_channels_alone(self):
        def run(s, x):
            y = s.a(x).permute(0, 2, 3, 1)
            b, h, w, c = y.shape
            y = y.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
            y = s.l(y + torch.roll(y, 3, 1))
            y = y.view(b, h // 4, w // 4, 4, 4, -1).permute(0, 5, 1, 3, 2, 4)
            return s.end(y.reshape(b, -1, h, w))

        net = Net(run, a=Conv(3, 6, 1), l=nn.Linear(6, 5), end=classifier(5))
        assert widths_of(check(net, image())) == {"a": 6, "l": 5}

    @pytest.mark.parametrize(
        ("name", "move"),
        [
            ("flip", lambda y: y.flip(1)),
            ("repeat", lambda y: y.repeat(1, 2, 1, 1)),
            ("repeat_interleave", lambda y: y.repeat_interleave(2, 1)),
            ("tile", lambda y: y.tile(1, 2, 1, 1)),
            ("unsqueeze", lambda y: y.unsqueeze(1).squeeze(1)),
            ("movedim", lambda y: y.movedim(1, -1).movedim(-1, 1)),
            ("swapaxes", lambda y: y.swapaxes(1, 3).swapaxes(3, 1)),
            ("contiguous", lambda y: y.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)),
            ("channels_last", lambda y: y.contiguous(memory_format=torch.channels_last)),
            ("view", lambda y: y.view(y.shape[0], y.shape[1], -1).unflatten(2, (8, 8))),
            ("einops", lambda y: y.reshape(*y.shape[:2], 2, 4, 8).permute(0, 2, 1, 3, 4).sum(1)),
        ],
    )
    def test_rearrangements(self, name, move):
        width = move(image(1, 4)).shape[1]
        net = Net(lambda s, x: s.end(s.b(move(s.a(x)))), a=Conv(3, 4, 1))
        net.b, net.end = Conv(width, 5, 1), classifier(5)
        assert widths_of(check(net, image())) == {"a": 4, "b": 5}

    def test_roll_along_channels_is_frozen(self):
        net = Net(lambda s, x: s.end(s.a(x).roll(1, 1)), a=Conv(3, 4, 1), end=classifier(4))
        assert "shift along channels" in reasons_of(check(net, image()))["a"]


class TestPads:
    def shortcut(self, pad):
        def run(s, x):
            y = s.a(x)
            return s.end(F.relu(s.b(F.relu(y)) + pad(y)))

        return Net(run, a=Conv(3, 4, 1), b=Conv(4, 8, 1), end=classifier(8))

    def test_around_images(self):
        net = Net(lambda s, x: s.end(s.b(F.pad(s.a(x), (1, 2, 0, 1)))), a=Conv(3, 4, 1))
        net.b, net.end = Conv(4, 5, 3), classifier(5)
        assert widths_of(check(net, image())) == {"a": 4, "b": 5}

    @pytest.mark.parametrize(
        "layer", [nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ZeroPad2d, nn.CircularPad2d]
    )
    def test_modes(self, layer):
        net = nn.Sequential(Conv(3, 4, 1), layer(1), Conv(4, 5, 3), classifier(5))
        assert widths_of(check(net, image())) == {"0": 4, "2": 5}

    def test_zero_channels_of_constant_number(self):
        """The parameter-free shortcuts of CIFAR's ResNets."""
        net = self.shortcut(lambda y: F.pad(y, (0, 0, 0, 0, 2, 2)))
        space = check(net, image())
        # Four rows of b meet channels of a, the other four meet the zeros, which stay.
        assert widths_of(space) == {"a": 4}
        assert places(space, "a", "b.weight", 0) == [[2], [3], [4], [5]]
        assert reasons_of(space)["b"].startswith("combined with channels that are fixed")

    def test_as_many_zero_channels_as_there_are_channels(self):
        net = self.shortcut(lambda y: torch.cat([y, torch.zeros_like(y)], 1))
        space = check(net, image())
        assert widths_of(space) == {"a": 4}
        assert places(space, "a", "b.weight", 0) == [[0, 4], [1, 5], [2, 6], [3, 7]]

    def test_zero_channels_of_a_buffer(self):
        def run(s, x):
            y = s.a(x)
            zeros = s.zeros.expand(y.shape[0], -1, *y.shape[2:])
            return s.end(F.relu(s.b(F.relu(y)) + torch.cat([y, zeros], 1)))

        net = Net(run, a=Conv(3, 4, 1), b=Conv(4, 8, 1), end=classifier(8))
        net.register_buffer("zeros", torch.zeros(1, 4, 1, 1))
        space = check(net, image())
        assert widths_of(space) == {"a": 4, "b": 4}
        assert slots_of(space, "b")["zeros", 1] == ("pass", (4, 1))

    def test_written_into_a_slice(self):
        def run(s, x):
            y = s.a(x)
            z = torch.zeros(y.shape[0], y.shape[1] * 2, *y.shape[2:])
            z[:, : y.shape[1]] = y
            return s.end(z)

        net = Net(run, a=Conv(3, 4, 1), end=classifier(8))
        assert widths_of(check(net, image())) == {}


class TestViews:
    def test_a_constant_view_is_frozen_by_the_trial(self):
        net = Net(lambda s, x: s.f(s.a(x).view(-1, 80)), a=Conv(3, 5, 3), f=nn.Linear(80, 3))
        space = check(net, image(size=6))
        assert widths_of(space) == {}
        assert "s.a(x).view(-1, 80)" in reasons_of(space)["a"]

    def test_maxout(self):
        def run(s, x):
            y = s.a(x)
            return s.end(y.view(y.shape[0], 2, y.shape[1] // 2, *y.shape[2:]).amax(1))

        net = Net(run, a=Conv(3, 12, 1), end=classifier(6))
        assert widths_of(check(net, image())) == {"a": 6}

    def test_detection_head(self):
        """YOLO-like: anchors and values share the last layer's channels, which stay."""

        def run(s, x):
            o = s.o(F.relu(s.a(x)))
            b, _, h, w = o.shape
            return o.view(b, 2, 5, h, w).permute(0, 1, 3, 4, 2).reshape(b, -1, 5).sigmoid()

        net = Net(run, a=Conv(3, 6, 3, padding=1), o=Conv(6, 10, 1))
        assert widths_of(check(net, image())) == {"a": 6}


class TestWindows:
    def test_unfold_to_columns(self):
        net = Net(lambda s, x: s.f(F.unfold(s.a(x), 3).transpose(1, 2)), a=Conv(3, 4, 1))
        net.f = nn.Linear(36, 5)
        assert places(check(net, image(size=6)), "a", "f.weight", 1)[1] == list(range(9, 18))

    def test_fold_back(self):
        def run(s, x):
            columns = s.f(F.unfold(s.a(x), 2, stride=2))
            return s.end(F.fold(columns, (8, 8), 2, stride=2))

        net = Net(run, a=Conv(3, 4, 1), f=nn.Conv1d(16, 12, 1), end=classifier(3))
        space = check(net, image())
        assert places(space, "f", "f.weight", 0)[1] == [4, 5, 6, 7]

    def test_tensor_unfold(self):
        net = Net(lambda s, x: s.end(s.a(x).unfold(2, 2, 2).amax(-1)), a=Conv(3, 4, 1))
        net.end = classifier(4)
        assert widths_of(check(net, image())) == {"a": 4}


class TestIndexing:
    def test_positions(self):
        net = Net(lambda s, x: s.end(s.a(x)[:, :, torch.tensor([0, 2, 4])]), a=Conv(3, 4, 1))
        net.end = classifier(4)
        assert widths_of(check(net, image())) == {"a": 4}

    def test_channels_by_number_are_frozen(self):
        net = Net(lambda s, x: s.end(s.b(s.a(x))[:, [0, 2, 4, 1]]), a=Conv(3, 4, 1))
        net.b, net.end = Conv(4, 6, 1), classifier(4)
        space = check(net, image())
        assert widths_of(space) == {"a": 4}
        assert reasons_of(space)["b"] == "indexed by a constant in the network (index)"

    def test_index_select_and_gather(self):
        def run(s, x):
            y = s.a(x).index_select(2, torch.tensor([0, 3]))
            order = torch.zeros(y.shape[0], 1, 2, 8, dtype=torch.int64)
            return s.end(y) + s.b(x).gather(1, order).mean((2, 3))

        net = Net(run, a=Conv(3, 4, 1), b=Conv(3, 5, 1), end=classifier(4))
        space = check(net, image())
        assert widths_of(space) == {"a": 4}
        assert "gathered by an index" in reasons_of(space)["b"]


class TestBuffers:
    def test_coordinates_beside_features(self):
        def run(s, x):
            return s.end(s.b(torch.cat([s.a(x), s.grid.expand(x.shape[0], -1, -1, -1)], 1)))

        net = Net(run, a=Conv(3, 6, 1), b=Conv(8, 5, 1), end=classifier(5))
        net.register_buffer("grid", drawn(1, 2, 8, 8))
        widths = widths_of(check(net, image()))
        assert (widths["a"], widths["b"]) == (6, 5)

    def test_a_buffer_that_is_a_depthwise_kernel(self):
        net = Net(
            lambda s, x: s.end(F.conv2d(s.a(x), s.kernel, stride=2, groups=s.kernel.shape[0])),
            a=Conv(3, 4, 1),
            end=classifier(4),
        )
        net.register_buffer("kernel", drawn(4, 1, 3, 3))
        space = check(net, image())
        assert widths_of(space) == {"a": 4}
        small = rp.cut(net, space, rp.Selection((np.array([1, 3]),)))
        assert torch.equal(small.kernel, net.kernel[[1, 3]])
