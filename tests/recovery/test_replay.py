"""The graph, walked node by node, computes what the network computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from repairable import NETWORKS, Bare, Chain, Concat, Grouped, Written, build, images
from torch import Tensor, nn
from torch.fx import Node

from randprune.errors import InvalidInputError, UnsupportedModelError
from randprune.graph.execute import Execution
from randprune.recovery.replay import Replay, add_bias, detached_tensors, replay_for


@pytest.mark.parametrize("make", NETWORKS)
def test_a_run_gives_the_outputs_and_drops_what_is_used_up(make: Callable[[], nn.Module]) -> None:
    network = build(make)
    replay = Replay(network, (images(1),))
    x = images(5)
    run = replay.run(detached_tensors(network), x)
    with torch.no_grad():
        torch.testing.assert_close(run.finish(), network(x))
    assert set(run.values) == set(replay.graph.outputs)


def test_what_is_written_in_place_is_seen_by_later_readers_only() -> None:
    network = build(Written)
    replay = Replay(network, (images(1),))
    seen: dict[str, Tensor] = {}
    x = images(5)

    def before(node: Node, run: Execution) -> None:
        seen[replay.layers[node].weight] = run.value(replay.source(node)).clone()

    with torch.no_grad():
        got = replay.run(detached_tensors(network), x, before).finish()
        a = network.a(x)
        summed = F.relu(network.b(a) + F.relu(a))
        assert torch.equal(seen["b.weight"], a)
        torch.testing.assert_close(seen["c.weight"], summed)
        torch.testing.assert_close(got, network(x))


def test_values_do_not_depend_on_the_order_in_which_they_are_asked_for() -> None:
    network = build(Written)
    replay = Replay(network, (images(1),))
    run = replay.run(detached_tensors(network), images(5))
    # The layer that reads the written value first, then the one that reads it as it was.
    sources = [replay.source(replay.node_of[name]) for name in ("c.weight", "b.weight")]
    run.pin(*sources)
    for node in sources:
        run.value(node)
    plain = network.a(images(5)).detach()
    assert torch.equal(run.value(replay.source(replay.node_of["b.weight"])), plain)


def test_operations_whose_results_nobody_reads_are_passed_over() -> None:
    class Converting(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.to(self.a.weight.dtype))

    network = build(Converting)
    replay = Replay(network, (images(1),))
    assert any("_assert" in node.name and not node.users for node in replay.graph.nodes)
    x = images(5)
    with torch.no_grad():
        torch.testing.assert_close(replay.run(detached_tensors(network), x).finish(), network(x))


def test_layers_know_their_tensors_and_geometry() -> None:
    replay = Replay(build(Chain), (images(1),))
    a, b, c, head = replay.layers.values()
    assert (a.weight, a.bias) == ("a.weight", "")
    assert (a.geometry.kernel, a.geometry.padding) == ((3, 3), (1, 1, 1, 1))
    assert a.norm is not None
    assert (a.norm.weight, a.norm.mean) == ("a_norm.weight", "a_norm.running_mean")
    assert (b.geometry.stride, b.taps) == ((2, 2), 9)
    assert (c.bias, c.norm) == ("c.bias", None)
    assert (c.geometry.dilation, c.geometry.padding) == ((2, 2), (2, 2, 2, 2))
    assert head.geometry.linear
    assert head.taps == 1
    assert Replay(build(Grouped), (images(1),)).node_of["b.weight"] is not None


def test_layers_that_read_the_same_windows_share_a_site() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 3, padding=1)
            self.b = nn.Conv2d(4, 4, 3, padding=1)
            self.c = nn.Conv2d(4, 4, 3, padding=1)
            self.d = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.b(x) + self.c(x) + self.d(x)

    layers = {y.weight: y for y in Replay(build(Fork), (images(1),)).layers.values()}
    assert layers["b.weight"].site == layers["c.weight"].site == "b.weight"
    assert layers["d.weight"].site == "d.weight"


def test_a_norm_read_by_two_or_behind_two_is_no_norm_of_the_layer() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)
            self.b = nn.Conv2d(3, 4, 1)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x)
            return self.norm(a) + a + self.norm(self.b(x))

    assert all(y.norm is None for y in Replay(build(Two), (images(1),)).layers.values())


def test_a_weight_used_twice_is_no_layer() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 3, 1)
            self.b = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(self.a(x)))

    assert [y.weight for y in Replay(build(Shared), (images(1),)).layers.values()] == ["b.weight"]


def test_weights_replaced_before_a_layer_is_reached_are_used() -> None:
    network = build(Concat)
    replay = Replay(network, (images(1),))
    tensors = detached_tensors(network)
    seen: list[str] = []

    def before(node: Node, run: Execution) -> None:
        layer = replay.layers[node]
        seen.append(layer.weight)
        tensors[layer.weight] = torch.zeros_like(tensors[layer.weight])
        if layer.weight == "head.weight":
            expected = torch.relu(tensors["both.bias"]).expand(5, -1)
            torch.testing.assert_close(run.value(replay.source(node)), expected)

    out = replay.run(tensors, images(5), before).finish()
    assert seen == ["a.weight", "b.weight", "both.weight", "head.weight"]
    torch.testing.assert_close(out, tensors["head.bias"].expand(5, -1))


def test_an_extra_bias_is_added_to_maps_and_rows() -> None:
    network = build(Bare)
    replay = Replay(network, (images(1),))
    run = replay.run(detached_tensors(network), images(5))
    for name in ("b.weight", "head.weight"):
        width = network.get_parameter(name).shape[0]
        run.amend[replay.node_of[name]] = partial(add_bias, torch.arange(float(width)))
    got = run.finish()
    network.b.bias = nn.Parameter(torch.arange(6.0))
    with torch.no_grad():
        network.head.bias += torch.arange(5.0)
        torch.testing.assert_close(got, network(images(5)))


def test_a_fork_shares_what_is_computed_and_leaves_the_run_alone() -> None:
    network = build(Chain)
    replay = Replay(network, (images(1),))
    tensors = detached_tensors(network)
    forks: list[Execution] = []

    def before(node: Node, run: Execution) -> None:
        if replay.layers[node].weight == "c.weight":
            forks.append(run.fork({**tensors, "c.weight": torch.zeros_like(tensors["c.weight"])}))

    run = replay.run(tensors, images(5), before)
    first = run.finish()
    second = forks[0].finish()
    with torch.no_grad():
        torch.testing.assert_close(first, network(images(5)))
        network.c.weight.zero_()
        torch.testing.assert_close(second, network(images(5)))


def test_a_batch_size_that_the_forward_fixes_is_respected() -> None:
    class OneByOne(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.a(image).mean((1, 2)) for image in x.unbind()])

    network = build(OneByOne)
    replay = replay_for(network, images(6))
    assert replay.fixed_batch == 6
    with torch.no_grad():
        got = replay.run(detached_tensors(network), images(6)).finish()
        torch.testing.assert_close(got, network(images(6)))
    with pytest.raises(UnsupportedModelError, match=r"at 6, the data come in batches of 5"):
        replay.run(detached_tensors(network), images(5))


def test_a_network_of_several_inputs_is_given_all_of_them() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor, y: dict[str, Tensor]) -> Tensor:
            return x + y["a"] * y["b"]

    x, a, b = images(3), images(3) + 1, images(3) + 2
    replay = replay_for(Pair(), (x, {"a": a, "b": b}))
    torch.testing.assert_close(replay.run({}, (x, {"a": a, "b": b})).finish(), x + a * b)
    with pytest.raises(InvalidInputError, match="has 3 inputs, 1 were given"):
        replay.run({}, x)
