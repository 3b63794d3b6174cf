"""A copy of a network for inference: batch norms folded where that is exact, never by guessing.

Which batch norm follows which convolution is read off one watched forward pass, so that any module
works, traceable or not: a pair counts when the batch norm's input *is* the convolution's output and
nothing else reads it. The folded copy must then reproduce the outputs; otherwise it is not folded.

Known shortcomings: transposed convolutions and subclasses that compute their weight in `forward`
keep their batch norm. A forward that branches on values is watched on one batch only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from randprune.errors import InvalidInputError, RandpruneError
from randprune.graph.entrance import plain_module
from randprune.graph.layers import NormValues
from randprune.graph.program import Inputs, as_inputs, in_mode, private_copy
from randprune.graph.trees import floating_leaves, map_tensors, part_of, shown

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# By name, so that neither library is imported. timm's runs drop and act after the norm.
_FROZEN_NORM, _NORM_WITH_ACTIVATION = "FrozenBatchNorm2d", "BatchNormAct2d"

_CHECK_IMAGES = 4
# Rounding alone stays far below; TensorFloat-32 convolutions on a GPU round at about 1e-3.
_TOLERANCE = {"cpu": 1e-3, "cuda": 2e-2}


@dataclass(frozen=True, slots=True, eq=False)
class InferenceCopy:
    """A network ready to run, and what was done to it.

    Attributes:
        network: in evaluation mode, without gradients.
        folded: (layer, batch norm) names of the pairs that became one layer.
        error: max |difference| / max |output| between folded and unfolded, on the check batch.
        note: why nothing was folded, "" where all pairs found were.
    """

    network: nn.Module
    folded: tuple[tuple[str, str], ...]
    error: float
    note: str


def inference_copy(
    model: nn.Module,
    inputs: Inputs,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    channels_last: bool = True,
    fold: bool = True,
) -> InferenceCopy:
    """A copy of `model` for inference on batches like `inputs`; the caller's stays untouched.

    Args:
        model: any network that gives floating-point tensors, in any structure.
        inputs: of the network: a tensor, such as images float32 (B, C, H, W), or a tuple; on any
            device: the check batch is taken of them.
        dtype: of the copy's parameters and buffers, and of the batches it will be given.
        device: where it will run.
        channels_last: memory order of the copy's 4-d weights.
        fold: whether to fold batch norms into the layers before them.

    Raises:
        InvalidInputError: the network returns no floating-point tensor.
        UnsupportedModelError: the network cannot be copied.
    """
    network = in_mode(private_copy(plain_module(model, "inference_copy"))).requires_grad_(False)
    network = network.to(device=device, dtype=torch.float32)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if channels_last:
        in_memory_order(network, torch.channels_last)
    pairs: tuple[tuple[str, str], ...] = ()
    error, note = 0.0, ""
    if fold:
        few = part_of(as_inputs(inputs), slice(_CHECK_IMAGES))
        few = prepared(few, torch.device(device), torch.float32, layout)
        pairs, error, note = _fold_checked(network, few)
    return InferenceCopy(network.to(dtype=dtype), pairs, error, note)


def in_memory_order(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    """`network` itself, its 4-d parameters and buffers in this memory order; others stay.

    `nn.Module.to(memory_format=...)` stops at the 5-d weights of a 3-d convolution.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=layout)
    return network


def prepared(
    value: Any, device: torch.device, dtype: torch.dtype, layout: torch.memory_format
) -> Any:
    """Inputs where and as a network reads them: floats in `dtype`, images in this memory order."""

    def moved(x: Tensor) -> Tensor:
        x = x.to(device, dtype if x.is_floating_point() else None, non_blocking=True)
        return x.contiguous(memory_format=layout) if x.ndim == 4 else x

    return map_tensors(moved, value)


def _outputs(network: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    """The floating-point tensors that a network gives."""
    output = network(*inputs)
    found = list(floating_leaves(output).values())
    if not found:
        raise InvalidInputError(
            f"{type(network).__name__} must return a floating-point tensor, or a structure of "
            f"them. Got {shown(output)} instead."
        )
    return found


def _difference(got: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of an output over its largest magnitude."""
    errors = [
        float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))
        for ours, theirs in zip(got, expected, strict=True)
        if theirs.numel()
    ]
    return max(errors, default=0.0)


def _fold_checked(
    network: nn.Module, inputs: tuple[Any, ...]
) -> tuple[tuple[tuple[str, str], ...], float, str]:
    """Fold all pairs in place and compare; undo everything where the outputs differ."""
    with torch.no_grad():
        watch = _Watch(network)
        try:
            with watch:
                expected = _outputs(network, inputs)
        finally:
            watch.close()
        pairs = watch.pairs()
        if not pairs:
            return (), 0.0, "no batch norm follows a convolution or linear layer alone"
        if not all(bool(torch.isfinite(z).all()) for z in expected):
            return (), 0.0, "the outputs are not finite, so a fold cannot be checked"
        undo = [_fold_pair(network, layer, norm) for layer, norm in pairs]
        try:
            error = _difference(_outputs(network, inputs), expected)
        except (RuntimeError, TypeError, ValueError, AttributeError, RandpruneError) as problem:
            error, reason = float("inf"), f"the folded network fails ({problem})"
        else:
            reason = f"folding changes the outputs by {error:.1e}"
    if error <= _TOLERANCE.get(expected[0].device.type, max(_TOLERANCE.values())):
        return pairs, error, ""
    for restore in undo:
        restore()
    return (), error, reason


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes, over one forward pass, which layer's output only one batch norm reads.

    A forward hook marks each candidate layer's output tensor; every operator that reads a marked
    tensor outside of a batch norm spoils it. Marked tensors are kept alive, so that their ids stay
    unique: use it on a few images.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        paths = Counter(id(m) for _, m in network.named_modules(remove_duplicate=False))
        owners = Counter(
            id(parameter)
            for module in network.modules()
            for parameter in module._parameters.values()
            if parameter is not None
        )
        self._marked: dict[int, tuple[str, Tensor]] = {}
        self._calls: Counter[str] = Counter()
        self._spoiled: set[str] = set()
        self._norm_of: dict[str, str] = {}
        self._inside_norm = False
        self._handles: list[Any] = []
        for name, module in network.named_modules():
            own = [p for p in module._parameters.values() if p is not None]
            if (
                not name
                or paths[id(module)] > 1
                or any(owners[id(p)] > 1 for p in own)
                or module._forward_hooks
                or module._forward_pre_hooks
            ):
                continue
            if _is_layer(module):
                self._handles.append(module.register_forward_hook(self._after_layer(name)))
            elif _is_norm(module):
                before, after = self._around_norm(name)
                self._handles.append(module.register_forward_pre_hook(before))
                self._handles.append(module.register_forward_hook(after))

    def close(self) -> None:
        """Take the hooks off the network again."""
        for handle in self._handles:
            handle.remove()

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(layer, batch norm) pairs in order of execution, each called exactly once."""
        return tuple(
            (layer, norm)
            for layer, norm in self._norm_of.items()
            if layer not in self._spoiled and self._calls[layer] == self._calls[norm] == 1
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self._marked and not self._inside_norm:
            for leaf in tree_leaves((args, kwargs)):
                if id(leaf) in self._marked:
                    self._spoiled.add(self._marked[id(leaf)][0])
        return func(*args, **(kwargs or {}))

    def _after_layer(self, name: str) -> Callable[..., None]:
        def mark(module: nn.Module, args: Any, output: Any) -> None:
            self._calls[name] += 1
            # A linear layer's channels are last, a batch norm's second: one axis only if 2-d.
            if isinstance(output, Tensor) and (
                not isinstance(module, nn.Linear) or output.ndim == 2
            ):
                self._marked[id(output)] = (name, output)

        return mark

    def _around_norm(self, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def enter(module: nn.Module, args: Any) -> None:
            self._calls[name] += 1
            self._inside_norm = True
            layer, _ = self._marked.get(id(args[0]), ("", None)) if args else ("", None)
            if layer in self._norm_of:
                self._spoiled.add(layer)
            elif layer:
                self._norm_of[layer] = name

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self._inside_norm = False

        return enter, leave


def _is_layer(module: nn.Module) -> bool:
    """A convolution or linear layer that computes what its class in torch.nn does."""
    # A subclass with a forward of its own may compute its weight there (weight standardisation).
    own = ("forward", "_conv_forward")
    # A parametrised weight (weight_norm) is computed anew in each pass, so none can be put there.
    stored = all(name in module._parameters for name in ("weight", "bias"))
    return stored and any(
        isinstance(module, kind)
        and all(getattr(type(module), name, None) is getattr(kind, name, None) for name in own)
        for kind in _LAYERS
    )


def _is_norm(module: nn.Module) -> bool:
    if isinstance(module, _BatchNorm) and type(module).forward is _BatchNorm.forward:
        return module.running_mean is not None and module.running_var is not None
    kind = type(module).__name__
    if kind == _NORM_WITH_ACTIVATION:
        parts = (getattr(module, "drop", None), getattr(module, "act", None))
        tracked = getattr(module, "running_mean", None) is not None
        return tracked and all(isinstance(part, nn.Module) for part in parts)
    return kind == _FROZEN_NORM


def _fold_pair(network: nn.Module, layer_name: str, norm_name: str) -> Callable[[], None]:
    """Fold one batch norm into its layer, in float64; returns what undoes it."""
    layer: Any = network.get_submodule(layer_name)
    norm: Any = network.get_submodule(norm_name)
    values = NormValues(norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    old_weight, old_bias = layer.weight, layer.bias
    weight, bias = values.folded(old_weight, old_bias)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    follows: nn.Module = nn.Identity()
    if type(norm).__name__ == _NORM_WITH_ACTIVATION:
        follows = nn.Sequential(norm.drop, norm.act)
    network.set_submodule(norm_name, follows)

    def undo() -> None:
        layer.weight, layer.bias = old_weight, old_bias
        network.set_submodule(norm_name, norm)

    return undo
