"""What a network must be before anything looks into it: an instance with values, unwrapped.

Wrappers that only change how a network runs (`torch.compile`, `nn.DataParallel`,
`DistributedDataParallel`) are taken off; names of tensors are then those of the network itself.
What cannot be pruned at all is refused here, in one sentence, before deep code meets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from randprune.errors import InvalidInputError, UnsupportedModelError, WeightsError
from randprune.lineage import named_tensors
from randprune.space import Space

# torch.compile's class by name: importing it would start the compiler.
_COMPILED = "OptimizedModule"
_QUANTISED = "torch.ao.nn."


def plain_module(model: Any, function: str, parameter: str = "model") -> nn.Module:
    """`model` without wrappers; the caller's `function` and `parameter` are named in messages.

    Raises:
        InvalidInputError: not an instance of `nn.Module`.
    """
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise InvalidInputError(
            f"The {parameter!r} parameter of {function} must be a network, not its class. Got the "
            f"class "
            f"{model.__name__}; make one first: {model.__name__}(...)."
        )
    if not isinstance(model, nn.Module):
        raise InvalidInputError(
            f"The {parameter!r} parameter of {function} must be a torch.nn.Module. "
            f"Got {type(model).__name__} instead."
        )
    plain: nn.Module = model
    while (inner := _wrapped(plain)) is not None:
        plain = inner
    return plain


def check_network(model: nn.Module) -> None:
    """Refuse what no cut can be made of.

    Raises:
        InvalidInputError: lazy layers, whose sizes are not known yet.
        UnsupportedModelError: quantised layers, or no parameters at all.
    """
    for name, layer in model.named_modules():
        if type(layer).__module__.startswith(_QUANTISED) and "quantized" in type(layer).__module__:
            raise UnsupportedModelError(
                f"The layer {_shown(name)} is quantised ({type(layer).__name__}): its weights are "
                "packed and cannot be cut. Prune the floating-point network, then quantise it."
            )
    for name, tensor in _tensors(model):
        if is_lazy(tensor):
            raise InvalidInputError(
                f"The layer {_shown(name.rpartition('.')[0])} is lazy: the size of {name} is not "
                "known yet. Run the network once on a batch, load its weights, and try again."
            )
    if next(model.parameters(), None) is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no parameters, so there is nothing to cut."
        )


def check_values(model: nn.Module) -> None:
    """Refuse a network whose tensors have no values.

    Raises:
        WeightsError: parameters or buffers on the meta device.
    """
    for name, tensor in _tensors(model):
        if tensor.is_meta:
            raise WeightsError(
                f"{name} lies on the meta device and has no values. Make the network on a real "
                "device (model.to_empty(device='cpu')) and load its weights."
            )


def check_space(model: nn.Module, space: Any, function: str) -> None:
    """Refuse a network that is not the one (or of the kind) whose channel groups `space` holds.

    Raises:
        InvalidInputError: no space at all, or one of another network.
    """
    if not isinstance(space, Space):
        raise InvalidInputError(
            f"The 'space' parameter of {function} must be a Space, as `trace` returns it. "
            f"Got {type(space).__name__} instead."
        )
    if space.as_graph:
        return  # its slots name the tensors of the emitted network
    tensors = named_tensors(model)
    for group in space.groups:
        for slot in group.slots:
            tensor = tensors.get(slot.tensor)
            if tensor is None:
                raise InvalidInputError(
                    f"The network has no tensor called {slot.tensor!r}: the space was traced from "
                    f"another network ({space.model or 'unknown'}). Trace this one."
                )
            if slot.dim >= tensor.ndim or int(slot.index.max()) >= tensor.shape[slot.dim]:
                raise InvalidInputError(
                    f"Tensor {slot.tensor!r} has shape {tuple(tensor.shape)}: the space was traced "
                    f"from a wider network. Give {function} the network that was traced."
                )
    params = space.costs.get("params")
    own = sum(_parameter_sizes(model, space.within))
    if params is not None and own != params.dense:
        raise InvalidInputError(
            f"{function} was given a network that is not the one that was traced: it has {own:,} "
            f"parameters, the traced one {params.dense:,.0f}. Trace the network that is given."
        )


def _parameter_sizes(model: nn.Module, within: tuple[str, ...]) -> Iterator[int]:
    """How many numbers each parameter has, of the whole network or of the named parts of it."""
    seen: set[int] = set()
    beginnings = tuple(f"{name}." for name in within) or ("",)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name.startswith(beginnings) and id(parameter) not in seen:
            seen.add(id(parameter))
            yield parameter.numel()


def _wrapped(model: nn.Module) -> nn.Module | None:
    """What a wrapper holds; None where `model` is no wrapper."""
    if type(model).__name__ == _COMPILED:
        inner = getattr(model, "_orig_mod", None)
    elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = model.module
    else:
        return None
    return inner if isinstance(inner, nn.Module) else None


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _shown(name: str) -> str:
    return repr(name) if name else "at the top"
