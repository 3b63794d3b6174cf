"""Many layers side by side in one ONNX model, so that a runtime loads once and times them all.

In a network a layer reads what was just written, and its result is read and forgotten at once. So
each layer here reads what an activation of its own has written, and its result is averaged: without
that, times of layers with large maps were those of memory, half as long again (measured).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from randprune.cost import FloatArray
from randprune.latency.operators import Call

# A model holds at most so many layers, and numbers of four bytes.
_LAYERS, _NUMBERS = 160, 1 << 26

_ATTRIBUTES: dict[str, dict[str, float]] = {
    "leaky_relu": {"alpha": 0.01},
    "hardsigmoid": {"alpha": 1 / 6, "beta": 0.5},
}
_ONNX = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "leaky_relu": "LeakyRelu",
    "hardsigmoid": "HardSigmoid",
}
# These have bounds as inputs.
_CLIPS = ("relu6", "hardtanh")
ACTIVATIONS = frozenset({*_ONNX, *_CLIPS})
"""Activations that can stand behind a layer in such a model."""
_OPSET, _IR = 18, 10


def portions(calls: Sequence[Call]) -> Iterator[Sequence[Call]]:
    """The calls in order, a model's at a time."""
    begin = numbers = 0
    for place, call in enumerate(calls):
        if place > begin and (place - begin >= _LAYERS or numbers + call.numbers > _NUMBERS):
            yield calls[begin:place]
            begin, numbers = place, 0
        numbers += call.numbers
    if begin < len(calls):
        yield calls[begin:]


def model_of(calls: Sequence[Call]) -> bytes:
    """A model with the layers; what counts for call i begins with ``call{i}_``."""
    import onnx  # an extra
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    bounds = {"zero": 0.0, "six": 6.0}
    tensors = [numpy_helper.from_array(np.array(v, "float32"), name) for name, v in bounds.items()]
    kind = onnx.TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info(name, kind, shape) for name, shape in _shapes(calls).items()
    ]
    nodes: list[Any] = []
    outputs = []
    for i, call in enumerate(calls):
        # Slopes differ, or one activation would serve several layers.
        slope = 0.01 + 1e-5 * i
        read = f"x{i}"
        nodes.append(
            helper.make_node("LeakyRelu", [_input(call)], [read], f"before{i}", alpha=slope)
        )
        name, made = f"call{i}_layer", f"call{i}_layer_out"
        weight, bias = _random(rng, call.weight_shape), np.zeros(call.outputs, dtype=np.float32)
        given = (weight, f"call{i}_weight"), (bias, f"call{i}_bias")
        tensors += [numpy_helper.from_array(value, key) for value, key in given]
        operands = [read, f"call{i}_weight", f"call{i}_bias"]
        nodes.append(_layer(helper, call, name, operands, made))
        if activation := call.operator.activation:
            nodes.append(_activation(helper, activation, f"call{i}_activation", made, f"call{i}_y"))
            made = f"call{i}_y"
        if call.operator.kind != "linear":
            nodes.append(helper.make_node("GlobalAveragePool", [made], [f"y{i}"], f"after{i}"))
            made = f"y{i}"
        outputs.append(helper.make_tensor_value_info(made, kind, None))
    graph = helper.make_graph(nodes, "layers", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR
    return bytes(model.SerializeToString())


def inputs_of(calls: Sequence[Call]) -> dict[str, Any]:
    """What `model_of` reads, by name, in the order of its inputs."""
    rng = np.random.default_rng(1)
    return {name: _random(rng, shape) for name, shape in _shapes(calls).items()}


def _shapes(calls: Sequence[Call]) -> dict[str, tuple[int, ...]]:
    return {_input(call): call.input_shape for call in calls}


def _input(call: Call) -> str:
    return "input_" + "x".join(map(str, call.input_shape))


def fastest_of(found: Sequence[tuple[str, float]], count: int) -> FloatArray:
    """The least milliseconds of each call, (count,), from kernels by name and the time each took.

    Kernels of a call's several nodes are added up.
    """
    least: dict[str, float] = {}
    for name, milliseconds in found:
        least[name] = min(milliseconds, least.get(name, math.inf))
    total = np.zeros(count)
    for name, milliseconds in least.items():
        head = name.partition("_")[0]
        if head.startswith("call") and head[4:].isdecimal() and int(head[4:]) < count:
            total[int(head[4:])] += milliseconds
    return total


def _layer(helper: Any, call: Call, name: str, operands: list[str], made: str) -> Any:
    lie = call.operator.lie
    if call.operator.kind == "linear":
        return helper.make_node("Gemm", operands, [made], name, transB=1)
    after, before = list(lie.padding[-1::-2]), list(lie.padding[-2::-2])
    attributes: dict[str, Any] = {
        "kernel_shape": list(lie.kernel),
        "strides": list(lie.stride),
        "dilations": list(lie.dilation),
        "pads": [*before, *after],
        "group": call.groups,
    }
    if lie.transposed:
        extra = list(lie.output_padding or (0,) * len(lie.kernel))
        return helper.make_node(
            "ConvTranspose", operands, [made], name, output_padding=extra, **attributes
        )
    return helper.make_node("Conv", operands, [made], name, **attributes)


def _activation(helper: Any, activation: str, name: str, read: str, made: str) -> Any:
    if activation in _CLIPS:
        return helper.make_node("Clip", [read, "zero", "six"], [made], name)
    attributes = _ATTRIBUTES.get(activation, {})
    return helper.make_node(_ONNX[activation], [read], [made], name, **attributes)


def _random(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    # A repeated pattern is as good as random numbers here, and made in no time.
    pattern = rng.standard_normal(4096, dtype=np.float32)
    return np.resize(pattern, math.prod(shape)).reshape(shape)
