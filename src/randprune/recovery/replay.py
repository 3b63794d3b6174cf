"""Run a network node by node on its exported graph, and see the layers that consume channels.

A `Replay` is exported once. A `Run` evaluates its nodes on demand with the tensors it is given, so
that the dense network and a cut one can be walked side by side, a layer's weights can be replaced
before anything behind it is computed, and a value is dropped after its last use.

Known shortcomings: convolutions in two dimensions and linear layers whose weight is a parameter
of its own are seen as layers; weights computed in the forward, transposed convolutions and plain
matrix products are executed, but not offered for repair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from randprune.errors import InvalidInputError, UnsupportedModelError
from randprune.graph.program import export_program
from randprune.graph.rules import operator_name
from randprune.lineage import named_tensors

_NORMS = ("batch_norm", "_native_batch_norm_legit_no_training")
_NORM_ARGUMENTS = {
    "batch_norm": {"weight": 1, "bias": 2, "mean": 3, "variance": 4, "epsilon": 7},
    "_native_batch_norm_legit_no_training": {
        "weight": 1, "bias": 2, "mean": 3, "variance": 4, "epsilon": 6
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Norm:
    """The batch norm that reads a layer's output and is its only reader: names of its tensors."""

    weight: str
    bias: str
    mean: str
    variance: str
    epsilon: float

    def affine(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Slope and offset (C,), float64: in evaluation mode the norm is x * slope + offset."""
        deviation = torch.sqrt(tensors[self.variance].detach().double() + self.epsilon)
        slope = 1.0 / deviation
        if self.weight:
            slope = tensors[self.weight].detach().double() * slope
        offset = -tensors[self.mean].detach().double() * slope
        if self.bias:
            offset = offset + tensors[self.bias].detach().double()
        return slope, offset


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or a linear layer: names of its tensors and its geometry.

    `weight` also names the layer. A linear layer has `taps` 1 and no geometry. `site` names the
    first layer that reads the same tensor through the same windows: such layers share moments.
    """

    weight: str
    bias: str
    norm: Norm | None
    site: str
    groups: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    linear: bool = False

    @property
    def taps(self) -> int:
        """Kernel positions: columns of the weight matrix per input channel."""
        return self.kernel[0] * self.kernel[1]


class Replay:
    """The exported graph of one network in evaluation mode; batch size free where torch allows.

    Args:
        model: the network; left untouched.
        inputs: example inputs, as `trace` takes them, batch first; only their shapes matter.
        batch: the batch size to export with, where the forward fixes it.

    Attributes:
        fixed_batch: the only batch size that the graph runs with; None where it is free.
    """

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...], batch: int = 2) -> None:
        self.program = export_program(model, _with_batch(inputs, batch), dynamic_batch=True)
        self.nodes: tuple[Node, ...] = tuple(self.program.graph.nodes)
        output = next(node for node in self.nodes if node.op == "output")
        self.outputs: tuple[Node, ...] = tuple(
            n for n in torch.utils._pytree.tree_leaves(output.args) if isinstance(n, Node)
        )
        self.inputs: tuple[Node, ...] = tuple(
            node
            for node in self.nodes
            if node.op == "placeholder"
            and node.name not in self.program.tensors
            and node.name not in self.program.constants
        )
        sizes = [_constant(n.meta["val"].shape[0]) for n in self.inputs if n.meta["val"].ndim]
        self.fixed_batch = next((size for size in sizes if size is not None), None)
        self.layers: dict[Node, Layer] = _find_layers(self)
        self.node_of: dict[str, Node] = {layer.weight: n for n, layer in self.layers.items()}

    def tensor_name(self, node: object) -> str:
        """The parameter or buffer that a node stands for; "" for anything else."""
        return self.program.tensors.get(node.name, "") if isinstance(node, Node) else ""

    def source(self, node: Node) -> Node:
        """The node whose value a layer reads."""
        found = node.args[0]
        assert isinstance(found, Node)
        return found

    def run(
        self,
        tensors: Mapping[str, Tensor],
        images: Tensor,
        before: Callable[[Node, Run], None] | None = None,
    ) -> Run:
        """A new evaluation on a batch of images; see `Run`."""
        if self.fixed_batch not in (None, len(images)):
            raise UnsupportedModelError(
                f"The forward fixes the batch size at {self.fixed_batch}, the data come in batches "
                f"of {len(images)}. Give all batches the same size."
            )
        if len(self.inputs) != 1:
            raise InvalidInputError(
                f"Statistics need a network with one input. This one has {len(self.inputs)}: "
                "use recovery 'none', or trace the part that reads images."
            )
        return Run(self, tensors, {self.inputs[0]: images}, before)


class Run:
    """Values of one evaluation, computed when asked for.

    Args:
        replay: the graph.
        tensors: parameters and buffers by name; read at the moment of use, so that a layer's
            weights may be replaced until the layer is computed.
        inputs: the values of the graph's inputs.
        before: called with each layer's node just before the layer is computed.

    Attributes:
        extra_bias: for layers without a bias of their own, a (C,) tensor added to their output.
    """

    def __init__(
        self,
        replay: Replay,
        tensors: Mapping[str, Tensor],
        inputs: Mapping[Node, Tensor],
        before: Callable[[Node, Run], None] | None = None,
    ) -> None:
        self.replay = replay
        self.tensors = tensors
        self.before = before
        self.extra_bias: dict[Node, Tensor] = {}
        self.values: dict[Node, Any] = dict(inputs)
        self._done: set[Node] = set()
        self._waiting = {node: len(node.users) for node in replay.nodes}
        self._pinned = set(replay.outputs)

    def value(self, node: Node) -> Any:
        """The value of a node; computes what it needs and lacks."""
        self._reach(node)
        return self._look_up(node)

    def _reach(self, node: Node) -> None:
        stack = [node]
        while stack:
            current = stack[-1]
            if current in self.values or self._is_tensor(current):
                stack.pop()
                continue
            missing = [
                n
                for n in current.all_input_nodes
                if n not in self.values and not self._is_tensor(n)
            ]
            if missing:
                stack.extend(missing)
                continue
            if current in self._done:
                raise AssertionError(f"the value of {current.name} was dropped before its last use")
            if self.before is not None and current in self.replay.layers:
                self.before(current, self)
            self._compute(current)
            stack.pop()

    def pin(self, node: Node) -> None:
        """Keep a node's value until `release`, whatever its readers."""
        self._pinned.add(node)

    def release(self, node: Node) -> None:
        """Undo `pin`, and drop the value where nobody needs it any more."""
        self._pinned.discard(node)
        if self._waiting[node] <= 0:
            self.values.pop(node, None)

    def finish(self) -> Tensor:
        """Compute everything that is left, in the graph's order; the first output."""
        for node in self.replay.nodes:
            if node.op in ("call_function", "get_attr") and node not in self._done:
                self._reach(node)
        result = self.values[self.replay.outputs[0]]
        assert isinstance(result, Tensor)
        return result

    def fork(self, tensors: Mapping[str, Tensor]) -> Run:
        """A second evaluation that shares all values computed so far; no `before` hook."""
        copy = Run(self.replay, tensors, self.values)
        copy.extra_bias = dict(self.extra_bias)
        copy._done = set(self._done)
        copy._waiting = dict(self._waiting)
        copy._pinned = set(self.replay.outputs)
        return copy

    def _is_tensor(self, node: Node) -> bool:
        return node.op == "placeholder" and node not in self.replay.inputs

    def _look_up(self, node: Node) -> Any:
        if node in self.values:
            return self.values[node]
        name = self.replay.tensor_name(node)
        if name:
            return self.tensors[name].detach()
        return self.replay.program.constants[node.name]

    def _compute(self, node: Node) -> None:
        if node.op == "get_attr":
            self.values[node] = getattr(self.replay.program.module, str(node.target))
        elif node.op == "call_function":
            if not operator_name(node).startswith("_assert"):
                args = torch.fx.map_arg(node.args, self._look_up)
                kwargs = torch.fx.map_arg(node.kwargs, self._look_up)
                result = node.target(*args, **kwargs)  # type: ignore[operator]
                if node in self.extra_bias:
                    result = add_bias(result, self.extra_bias[node])
                self.values[node] = result
            else:
                self.values[node] = None
        self._done.add(node)
        if not node.users:
            self.values.pop(node, None)
        for source in node.all_input_nodes:
            self._waiting[source] -= 1
            if self._waiting[source] <= 0 and source not in self._pinned:
                self.values.pop(source, None)


def replay_for(model: nn.Module, images: Tensor) -> Replay:
    """A replay of the model that runs on batches of this size."""
    replay = Replay(model, (images,))
    if replay.fixed_batch not in (None, len(images)):
        replay = Replay(model, (images,), batch=len(images))
    return replay


def add_bias(output: Tensor, bias: Tensor) -> Tensor:
    """`output` with one number added per channel: axis 1 of feature maps, else the last."""
    bias = bias.to(output.dtype)
    return output + (bias[:, None, None] if output.ndim == 4 else bias)


def detached_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all names, detached, four-axis ones in channels_last order."""
    return {
        name: tensor.detach().contiguous(memory_format=torch.channels_last)
        if tensor.ndim == 4
        else tensor.detach()
        for name, tensor in named_tensors(model).items()
    }


def _constant(size: int | torch.SymInt) -> int | None:
    """The size where the graph holds for it alone."""
    return size if isinstance(size, int) else size.node.maybe_as_int()


def _with_batch(inputs: tuple[Any, ...], batch: int) -> tuple[Any, ...]:
    """Zeros of the inputs' shapes with another batch size; torch.export fixes a size of one."""

    def resize(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim:
            return torch.zeros((batch, *value.shape[1:]), dtype=value.dtype, device=value.device)
        return value

    return tuple(map(resize, inputs))


def _find_layers(replay: Replay) -> dict[Node, Layer]:
    uses: dict[str, int] = {}
    for node in replay.nodes:
        for source in node.all_input_nodes:
            name = replay.tensor_name(source)
            if name:
                uses[name] = uses.get(name, 0) + 1
    layers: dict[Node, Layer] = {}
    sites: dict[tuple[Any, ...], str] = {}
    for node in replay.nodes:
        found = _layer(replay, node)
        # A weight used twice (a layer applied at several places) has no single input.
        if found is None or uses[found.weight] != 1:
            continue
        where = (node.args[0], found.groups, found.kernel, found.stride, found.padding)
        site = sites.setdefault((*where, found.dilation, found.linear), found.weight)
        norm = _norm_behind(replay, node, uses)
        layers[node] = replace(found, norm=norm, site=site)
    return layers


def _layer(replay: Replay, node: Node) -> Layer | None:
    if node.op != "call_function" or operator_name(node) not in ("conv2d", "linear"):
        return None
    names = ("input", "weight", "bias")
    bound = dict(zip(names, node.args, strict=False))
    bound |= {key: value for key, value in node.kwargs.items() if key in names}
    weight = replay.tensor_name(bound.get("weight"))
    bias = replay.tensor_name(bound.get("bias"))
    if not weight or (bound.get("bias") is not None and not bias):
        return None
    if operator_name(node) == "linear":
        return Layer(weight, bias, None, weight, linear=True)
    shape = bound["weight"].meta["val"].shape  # type: ignore[union-attr]
    rest: dict[str, Any] = dict(
        zip(("stride", "padding", "dilation", "groups"), node.args[3:], strict=False)
    )
    rest |= {key: value for key, value in node.kwargs.items() if key not in bound}
    kernel = (int(shape[2]), int(shape[3]))
    dilation = _pair(rest.get("dilation", 1))
    return Layer(
        weight,
        bias,
        norm=None,
        site=weight,
        groups=int(rest.get("groups", 1)),
        kernel=kernel,
        stride=_pair(rest.get("stride", 1)),
        padding=_margins(rest.get("padding", 0), kernel, dilation),
        dilation=dilation,
    )


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (int(value[0]), int(value[-1]))


def _margins(
    padding: Any, kernel: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Zeros added (left, right, top, bottom), the order of `torch.nn.functional.pad`."""
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        high, wide = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        return (wide // 2, wide - wide // 2, high // 2, high - high // 2)
    high, wide = _pair(padding)
    return (wide, wide, high, high)


def _norm_behind(replay: Replay, node: Node, uses: Mapping[str, int]) -> Norm | None:
    if len(node.users) != 1:
        return None
    user = next(iter(node.users))
    if user.op != "call_function" or operator_name(user) not in _NORMS or user.args[0] is not node:
        return None
    places = _NORM_ARGUMENTS[operator_name(user)]
    names = {key: replay.tensor_name(user.args[place]) for key, place in places.items()}
    if not names["mean"] or not names["variance"] or uses[names["mean"]] != 1:
        return None
    return Norm(names["weight"], names["bias"], names["mean"], names["variance"],
                float(user.args[places["epsilon"]]))  # type: ignore[arg-type]  # fmt: skip
