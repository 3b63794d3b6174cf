"""The layers of a network that can be repaired, and walks over its graph that stop at them.

A `Replay` is exported once. A walk evaluates its graph with the tensors that it is given
(`randprune.graph.execute`), and calls back just before each layer is computed, so that the layer's
weights can be replaced before anything behind them is computed.

Known shortcomings: convolutions and linear layers whose weight is a parameter of its own are seen
as layers; weights computed in the forward, grouped transposed convolutions and plain matrix
products are executed, but not offered for repair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils._pytree import tree_leaves, tree_map

from randprune.errors import InvalidInputError, UnsupportedModelError
from randprune.graph.execute import ExecutableGraph, Execution
from randprune.graph.layers import TRANSPOSED, Geometry, Norm, geometry, norm_behind
from randprune.graph.program import Inputs, as_inputs, export_program
from randprune.graph.steps import Step
from randprune.graph.trees import count_of, shown
from randprune.lineage import named_tensors

_LAYERS = ("conv1d", "conv2d", "conv3d", *TRANSPOSED, "linear")


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or a linear layer: names of its tensors and its geometry.

    `weight` also names the layer. `norm` reads its output and is its only reader. `site` names the
    first layer that reads the same tensor through the same windows: such layers share moments.
    """

    weight: str
    bias: str
    norm: Norm | None
    site: str
    geometry: Geometry

    @property
    def taps(self) -> int:
        """Kernel positions: columns of the weight matrix per input channel."""
        return self.geometry.taps

    @property
    def groups(self) -> int:
        """Of a grouped convolution."""
        return self.geometry.groups

    @property
    def input_dim(self) -> int:
        """The axis of the weight that input channels are on; the outputs are on the other one."""
        return 0 if self.geometry.transposed else 1

    def upright(self, weight: Tensor) -> Tensor:
        """The weight, or one like it, as (outputs, inputs, *kernel): a view, its own inverse."""
        return weight.transpose(0, 1) if self.geometry.transposed else weight


class Replay:
    """The graph of one network in evaluation mode; batch size free where torch allows.

    Args:
        model: the network; left untouched.
        inputs: example inputs, as `trace` takes them, batch first; only their shapes matter.
        batch: the batch size to export with, where the forward fixes it.

    Attributes:
        graph: what walks evaluate.
        layers: the layers that can be repaired, by node, in order.
        node_of: the node of a layer, by the name of its weight.
    """

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...], batch: int = 2) -> None:
        program = export_program(model, _with_batch(inputs, batch), dynamic_batch=True)
        self.graph = ExecutableGraph(program)
        self.layers: dict[Node, Layer] = _find_layers(self.graph)
        self.node_of: dict[str, Node] = {layer.weight: n for n, layer in self.layers.items()}

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that the graph runs with; None where it is free."""
        return self.graph.fixed_batch

    def source(self, node: Node) -> Node:
        """The node whose value a layer reads."""
        found = self.graph.steps.at[node].args[0]
        assert isinstance(found, Node)
        return found

    def run(
        self,
        tensors: Mapping[str, Tensor],
        inputs: Inputs,
        before: Callable[[Node, Execution], None] | None = None,
    ) -> Execution:
        """A new evaluation on a batch of inputs; `before` is called ahead of each layer."""
        inputs = as_inputs(inputs)
        count = count_of(inputs)
        if self.fixed_batch not in (None, count):
            raise UnsupportedModelError(
                f"The forward fixes the batch size at {self.fixed_batch}, the data come in batches "
                f"of {count}. Give all batches the same size."
            )
        values, wanted = tree_leaves(inputs), len(self.graph.inputs)
        if len(values) != wanted:
            raise InvalidInputError(
                f"The network has {wanted} inputs, {len(values)} were given: {shown(inputs)}."
            )
        hooks = {node: partial(before, node) for node in self.layers} if before else None
        return self.graph.run(tensors, values, hooks)


def replay_for(model: nn.Module, inputs: Inputs) -> Replay:
    """A replay of the model that runs on batches of this size."""
    inputs = as_inputs(inputs)
    count = count_of(inputs)
    replay = Replay(model, inputs)
    if replay.fixed_batch not in (None, count):
        replay = Replay(model, inputs, batch=count)
    return replay


def add_bias(bias: Tensor, output: Tensor, *, linear: bool = False) -> Tensor:
    """`output` with one number added per channel: on the last axis of a linear layer, else 1."""
    bias = bias.to(output.dtype)
    return output + (bias if linear else bias.reshape(-1, *[1] * (output.ndim - 2)))


def detached_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all names, detached, four-axis ones in channels_last order."""
    return {
        name: tensor.detach().contiguous(memory_format=torch.channels_last)
        if tensor.ndim == 4
        else tensor.detach()
        for name, tensor in named_tensors(model).items()
    }


def _with_batch(inputs: tuple[Any, ...], batch: int) -> tuple[Any, ...]:
    """Zeros of the inputs' shapes with another batch size; torch.export fixes a size of one."""

    def resize(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim:
            return torch.zeros((batch, *value.shape[1:]), dtype=value.dtype, device=value.device)
        return value

    resized: tuple[Any, ...] = tree_map(resize, inputs)
    return resized


def _find_layers(graph: ExecutableGraph) -> dict[Node, Layer]:
    uses: dict[str, int] = {}
    for source, readers in graph.steps.readers.items():
        if name := graph.tensor_name(source):
            uses[name] = uses.get(name, 0) + len(readers)
    layers: dict[Node, Layer] = {}
    sites: dict[tuple[Any, ...], str] = {}
    for step in graph.steps.order:
        found = _layer(graph, step)
        # A weight used twice (a layer applied at several places) has no single input.
        if found is None or uses[found.weight] != 1:
            continue
        site = sites.setdefault((step.args[0], found.geometry), found.weight)
        behind = norm_behind(graph, step)
        norm = behind[1] if behind else None
        # Statistics that another layer's outputs go through too cannot be moved for this one.
        if norm is not None and not (norm.mean and norm.variance and uses[norm.mean] == 1):
            norm = None
        layers[step.node] = replace(found, norm=norm, site=site)
    return layers


def _layer(graph: ExecutableGraph, step: Step) -> Layer | None:
    if step.operator not in _LAYERS:
        return None
    bound = step.bound()
    weight, bias = graph.tensor_name(bound["weight"]), graph.tensor_name(bound["bias"])
    if not weight or (bound["bias"] is not None and not bias):
        return None
    lie = geometry(step, bound["weight"].meta["val"].shape[2:])
    if lie.transposed and lie.groups > 1:
        return None
    return Layer(weight, bias, None, weight, lie)
