"""Every runtime runs a network and times its layers; what they say agrees with what they run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from stepwise import small_network
from torch import nn

import randprune as rp
from randprune.latency import measure_latency, runtimes, speedup
from randprune.latency.onnx_operators import fastest_of, portions
from randprune.latency.operators import Call, work_of

SHAPE = (2, 3, 8, 8)


class Mixed(nn.Module):
    """A depthwise, a grouped, a transposed and a one-dimensional layer, an addition, a concat."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 16, 1, groups=2)
        self.up = nn.ConvTranspose2d(32, 8, 2, stride=2)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.hardsigmoid(self.first(x))
        y = x + self.grouped(self.depthwise(x))
        y = self.up(torch.cat([x, y], 1))
        return self.last(y.mean((2, 3)))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_a_runtime_times_networks_and_every_kind_of_layer(name: str) -> None:
    pytest.importorskip(name)
    runtime = runtimes.create(name)
    model = Mixed().eval()
    space = rp.trace(model, torch.zeros(1, *SHAPE[1:]))
    runner = runtime.prepare(model, (torch.randn(SHAPE),), 1)
    assert runner.clock(2) > 0.0
    assert runner.fastest(2) > 0.0
    layers = work_of(model, space, SHAPE[0], runtime.absorbs).layers
    assert [layer.name for layer in layers] == ["first", "depthwise", "grouped", "up", "last"]
    found = runtime.operators_ms([layer.call(space.widths) for layer in layers], 1)
    assert found.shape == (5,)
    assert (found > 0.0).all()


def test_networks_are_measured_in_a_runtime() -> None:
    models = {"a": small_network(), "b": small_network()}
    found = measure_latency(models, torch.zeros(SHAPE), repeats=3, threads=1, runtime="onnxruntime")
    assert {one.runtime for one in found.values()} == {"onnxruntime"}
    assert speedup(found["a"], found["b"]).rounds == 3


def test_layers_know_their_widths_and_what_is_within_them() -> None:
    model = small_network()
    space = rp.trace(model, torch.zeros(1, 3, 8, 8))
    work = work_of(model, space, 4, {"batch_norm", "relu"})
    calls = [layer.call(np.array([5, 7])) for layer in work.layers]
    assert [(c.inputs, c.outputs) for c in calls] == [(3, 5), (5, 7), (7, 10)]
    assert [c.operator.activation for c in calls] == ["relu", "relu", ""]
    assert calls[0].input_shape == (4, 3, 8, 8)
    assert calls[2].input_shape == (4, 7)
    slope, offset = work.numbers("movement")  # the pooling reads 8x8 positions and writes one
    assert (slope.tolist(), offset) == ([0, 4 * 65], 0)
    assert work.numbers("pointwise")[0].tolist() == [0, 0]
    bare = work_of(model, space, 1, ())
    assert [layer.operator.activation for layer in bare.layers] == ["", "", ""]
    assert bare.numbers("pointwise")[0].tolist() == [4 * 64, 4 * 64]


def test_kernels_are_added_up_and_the_fastest_counts() -> None:
    kernels = [("call0_layer", 2.0), ("call0_layer", 1.0), ("call0_act", 0.5), ("call1_y", 3.0)]
    assert fastest_of([*kernels, ("ReorderInput", 9.0), ("called", 9.0)], 2).tolist() == [1.5, 3.0]


def test_a_model_holds_no_more_layers_than_fit() -> None:
    model = small_network()
    operator = work_of(model, rp.trace(model, torch.zeros(1, 3, 8, 8)), 1, ()).layers[0].operator
    calls: Sequence[Call] = [Call(operator, 3, 64)] * 400
    parts = list(portions(calls))
    assert [len(part) for part in parts] == [160, 160, 80]
