"""Random small networks: what is cut equals the masked dense network, and costs what is said."""

from __future__ import annotations

import os

import pytest
import torch
from exactness import check, image
from hypothesis import HealthCheck, given, settings, strategies as st
from random_networks import networks
from torch.utils._pytree import tree_leaves

from randprune.graph.execute import ExecutableGraph
from randprune.graph.program import export_program
from randprune.lineage import named_tensors

# RANDPRUNE_FUZZ=5000 searches for new examples; by default the same ones are run every time.
WANTED = int(os.environ.get("RANDPRUNE_FUZZ", "0"))

fuzz = settings(
    max_examples=WANTED or 40,
    derandomize=not WANTED,
    deadline=None,
    database=None,
    print_blob=bool(WANTED),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(0 if WANTED else 900)
@fuzz
@given(networks(), st.integers(0, 2**16))
def test_modules(net, seed):
    check(net, image(size=4), seeds=(seed,), train=False, retrace=False)


@pytest.mark.timeout(0 if WANTED else 900)
@settings(fuzz, max_examples=WANTED or 15)
@given(networks(steps=6), st.integers(0, 2**16))
def test_graphs(net, seed):
    check(net, image(size=4), seeds=(seed,), train=False, retrace=False, as_graph=True)


@pytest.mark.timeout(0 if WANTED else 900)
@settings(fuzz, max_examples=WANTED or 200)
@given(networks(steps=3, written=2))
def test_graphs_with_writes_in_place_replay_exactly(net):
    """In the graph's order, and from the last value backwards, each asked for on its own."""
    x = image(size=4)
    graph = ExecutableGraph(export_program(net, (x.clone(),)))
    tensors = {name: tensor.detach() for name, tensor in named_tensors(net).items()}
    with torch.no_grad():
        wanted = tree_leaves(net(x.clone()))
        in_order = graph.run(tensors, [x])
        in_order.finish()
        backwards = graph.run(tensors, [x])
        backwards.pin(*graph.steps.at)
        for node in reversed(graph.steps.at):
            backwards.value(node)
        for node, value in zip(graph.outputs, wanted, strict=True):
            torch.testing.assert_close(in_order.value(node), value, rtol=1e-5, atol=1e-6)
            assert torch.equal(backwards.value(node), in_order.value(node))
