"""Walks over whatever holds tensors: dicts, tuples, lists, dataclasses, in any nesting.

Batches and outputs come in structures that torch's own tree functions do not all know (user dicts,
unregistered dataclasses). Mappings become plain dicts where a structure is built anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from randprune.errors import DataError


def named_leaves(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor with its place, such as "boxes.0"; "" for a tensor alone."""
    if isinstance(value, Tensor):
        yield path, value
        return
    for key, item in _items(value):
        yield from named_leaves(item, f"{path}.{key}" if path else str(key))


def floating_leaves(value: Any) -> dict[str, Tensor]:
    """The floating-point tensors by place; what a network computed, without masks and indices."""
    return {path: leaf for path, leaf in named_leaves(value) if leaf.is_floating_point()}


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """The same structure with every tensor replaced; other values stay."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(function, item) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(map_tensors(function, item) for item in value)
    if _is_dataclass(value):
        fields = (f.name for f in dataclasses.fields(value) if f.init)
        mapped = {name: map_tensors(function, getattr(value, name)) for name in fields}
        return dataclasses.replace(value, **mapped)
    return value


def count_of(value: Any) -> int:
    """How many samples a batch holds: the first axis of its first tensor that has axes.

    Raises:
        DataError: there is no such tensor.
    """
    for _, leaf in named_leaves(value):
        if leaf.ndim:
            return len(leaf)
    raise DataError(
        f"A batch holds no tensor with a batch axis: {shown(value)}. Give batches of tensors, the "
        "first axis of which counts the samples."
    )


def part_of(value: Any, part: slice | Tensor) -> Any:
    """Some samples of a batch, by a slice or their numbers; what has no row for each stays."""
    count = count_of(value)
    return map_tensors(lambda x: x[part] if x.ndim and len(x) == count else x, value)


def joined(parts: Sequence[Any]) -> Any:
    """Batches of one structure as one batch; what is no tensor is that of the first.

    Raises:
        DataError: structures or shapes that differ.
    """
    if len(parts) == 1:
        return parts[0]
    leaves = [[leaf for _, leaf in named_leaves(part)] for part in parts]
    try:
        columns = iter([_cat(column) for column in zip(*leaves, strict=True)])
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"Batches cannot be joined: {shown(parts[0])} and {shown(parts[-1])}. Give all samples "
            "the same structure and size."
        ) from error
    return map_tensors(lambda _: next(columns), parts[0])


def shown(value: Any) -> str:
    """A structure in a few words, for messages: types, keys and shapes."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        few = ", ".join(shown(item) for item in value[:4]) + (", ..." if len(value) > 4 else "")
        return f"{type(value).__name__}({few})"
    return type(value).__name__


def check_plain(value: Tensor, where: str) -> None:
    """Raise a `DataError` for a tensor that is no plain array of values."""
    if value.is_meta or value.layout != torch.strided:
        kind = "is on the device 'meta', without values" if value.is_meta else "is sparse"
        raise DataError(
            f"The {where} must be ordinary tensors. Got {shown(value)}, which {kind}; "
            "give tensors as .to_dense() or .cpu() makes them."
        )


def _cat(column: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(column)) if column[0].ndim else column[0]


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple | list):
        yield from enumerate(value)
    elif _is_dataclass(value):
        yield from ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
