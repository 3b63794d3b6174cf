"""How a batch of data becomes a call of a network: which part of it `forward` is given.

- A tensor is the input.
- A mapping gives `forward` what it names (labels aside), as Hugging Face batches do; one that it
  names nothing of gives its image, or is the input as a whole.
- Of a tuple or list the first part is the input and the rest are targets; where `forward` asks for
  several tensors, that many parts, or all that lie in the first part.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from randprune.errors import InvalidInputError
from randprune.graph.trees import map_tensors, named_leaves, shown

TARGETS = ("labels", "label", "targets", "target", "mask", "masks")
"""Keys of a mapping that hold what a network should say, never its input."""
_INPUTS = ("inputs", "input", "images", "image", "pixel_values", "x")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def network_inputs(network: nn.Module, batch: Any) -> tuple[Any, ...]:
    """The positional inputs of `network` in a batch.

    Raises:
        InvalidInputError: the batch lacks what `forward` needs, or holds no tensor.
    """
    parameters = inspect.signature(network.forward).parameters
    inputs = _inputs(network, batch, parameters)
    if next(named_leaves(inputs), None) is None:
        raise InvalidInputError(
            f"The batch holds no tensor for {type(network).__name__}: {shown(batch)}."
        )
    return map_tensors(lambda x: x, inputs)  # type: ignore[no-any-return]


def _inputs(
    network: nn.Module, batch: Any, parameters: Mapping[str, inspect.Parameter]
) -> tuple[Any, ...]:
    required = [p for p in parameters.values() if p.kind in _POSITIONAL and p.default is p.empty]
    several = len(required) > 1
    open_end = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
    if isinstance(batch, Tensor):
        inputs: tuple[Any, ...] = (batch,)
    elif isinstance(batch, Mapping):
        inputs = _named(network, batch, parameters)
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        names = [field.name for field in dataclasses.fields(batch)]
        inputs = _named(network, {name: getattr(batch, name) for name in names}, parameters)
    elif not isinstance(batch, tuple | list) or not batch:
        raise InvalidInputError(
            "A batch must be a tensor, or a tuple, list or mapping that begins with the network's "
            f"input. Got {shown(batch)} instead."
        )
    elif isinstance(batch[0], Mapping):
        known = any(name in parameters for name in batch[0])
        inputs = _named(network, batch[0], parameters) if known else (batch[0],)
    elif isinstance(batch[0], tuple | list):
        inputs = tuple(batch[0]) if several or open_end else (batch[0],)
    else:
        inputs = tuple(batch[: len(required)]) if several else (batch[0],)
    if len(inputs) < len(required):
        missing = [p.name for p in required][len(inputs) :]
        raise InvalidInputError(
            f"The forward of {type(network).__name__} needs {', '.join(missing)}, which the batch "
            f"does not hold: {shown(batch)}."
        )
    return inputs


def _named(
    network: nn.Module, batch: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> tuple[Any, ...]:
    """The inputs that a mapping names, in the order of `forward`; defaults fill the gaps."""
    given = {name for name in parameters if name in batch and name not in TARGETS}
    ordered = [p for p in parameters.values() if p.kind in _POSITIONAL]
    if not given:
        return (next((batch[name] for name in _INPUTS if name in batch), dict(batch)),)
    inputs: list[Any] = []
    last = max((i for i, p in enumerate(ordered) if p.name in given), default=-1)
    for parameter in ordered[: last + 1]:
        if parameter.name in given:
            inputs.append(batch[parameter.name])
        elif parameter.default is parameter.empty:
            raise InvalidInputError(
                f"The forward of {type(network).__name__} needs {parameter.name!r}, which the "
                f"batch does not hold: {shown(batch)}."
            )
        else:
            inputs.append(parameter.default)
    if keyword := given - {p.name for p in ordered}:
        raise InvalidInputError(
            f"The forward of {type(network).__name__} takes {sorted(keyword)[0]!r} by keyword "
            "only. Wrap the network in a module that takes its inputs by position."
        )
    return tuple(inputs)
