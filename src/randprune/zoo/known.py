"""Networks that a file may name: constructors known by name, with options that are checked first.

A file is data. It may say "torchvision:resnet50 with 10 classes", because what that runs is known
beforehand; it may not name a function. Of the options, too, only those pass that the constructor
declares and whose values are of the declared type, none that loads weights or reads files, and
nothing is built that is much larger than the file says its network is.
"""

from __future__ import annotations

import inspect
import math
import threading
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from randprune.errors import InvalidInputError
from randprune.zoo.models import OWN_MODELS, build_model, list_models

SOURCES = ("randprune", "torchvision", "timm")

# Loaders' own parameters and switches for weights: a file has no say in them.
_NEVER = frozenset(
    {
        *("weights", "weights_backbone", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"),
        *("checkpoint_path", "cache_dir", "progress", "scriptable", "exportable", "no_jit"),
        *("features_only", "init_weights"),
    }
)
_SIZES = {"num_classes": 1 << 20, "in_channels": 1 << 16, "in_chans": 1 << 16}
_LARGEST = 1 << 20
_LONGEST = 64
# Constructors make layers that they replace again, such as a head of other size.
_SLACK = 4
_SLACK_TENSORS = 1_000
_SLACK_BYTES = 1 << 28


def is_known(spec: str) -> bool:
    """Whether the name is of a kind that files may use, whether or not there is such a network."""
    return spec.partition(":")[0] in SOURCES


def build_known_model(
    spec: str, options: Mapping[str, Any], *, tensors: int, size_bytes: int
) -> nn.Module:
    """A new network, as `build_model` makes it.

    Args:
        spec: "randprune:NAME", "torchvision:NAME" or "timm:NAME".
        options: JSON values by name.
        tensors, size_bytes: of the network that is expected; one of many times the size is not
            built to its end.

    Raises:
        InvalidInputError: an unknown name, an option that the constructor does not declare or whose
            value is of another type, or a network that is much larger than expected.
    """
    _check_name(spec)
    known = {key: value for key, value in options.items() if key in _SIZES}
    for key, value in known.items():
        if value is not None and (type(value) is not int or not 1 <= value <= _SIZES[key]):
            raise InvalidInputError(
                f"The option {key!r} of {spec!r} must be an integer in 1..{_SIZES[key]}. "
                f"Got {_shown(value)} instead."
            )
    if rest := {key: value for key, value in options.items() if key not in _SIZES}:
        _check_declared(spec, rest)
    try:
        with _bounded(spec, tensors, size_bytes):
            return build_model(spec, **options)
    except InvalidInputError:
        raise
    except Exception as error:  # whatever a constructor says about values it does not like
        raise InvalidInputError(
            f"The model {spec!r} cannot be made with the options {sorted(options)}: "
            f"{type(error).__name__}: {_shown(str(error))}."
        ) from error


def plain_options(spec: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a file for a function that the caller names: numbers, switches and words.

    Raises:
        InvalidInputError: one that could be a path, an address, or a switch for weights.
    """
    for key, value in options.items():
        values = value if isinstance(value, list) else [value]
        plain = all(entry is None or _is_plain(entry) for entry in values)
        if not key.isidentifier() or key in _NEVER or not plain:
            raise InvalidInputError(
                f"The file gives {spec!r} the option {key!r} = {_shown(value)}, which is not "
                "passed on: only numbers, true, false and single words are."
            )
    return dict(options)


def _check_name(spec: str) -> None:
    source, _, name = spec.partition(":")
    stem, dot, tag = name.partition(".")
    # timm's names have a tag; addresses and folders, which timm would fetch from, have signs.
    parts = [stem, tag] if dot and source == "timm" else [name]
    if not all(part.isascii() and part.replace("_", "a").isalnum() for part in parts):
        raise InvalidInputError(f"The name {_shown(spec)} is not that of a known network.")
    if source == "timm" and stem not in list_models("timm"):
        raise InvalidInputError(f"Unknown model {_shown(spec)}.")


def _check_declared(spec: str, options: Mapping[str, Any]) -> None:
    """Raise unless the network's constructor declares each option, with a type that fits."""
    declared = _parameters(spec)
    for key, value in options.items():
        parameter = declared.get(key)
        if parameter is None or key in _NEVER:
            raise InvalidInputError(
                f"The constructor of {spec!r} declares no option {_shown(key)} that a file may set."
            )
        if not _fits(value, parameter.annotation, parameter.default):
            raise InvalidInputError(
                f"The option {key!r} of {spec!r} cannot be {_shown(value)}: it is declared as "
                f"{parameter.annotation!s:.80}."
            )


def _parameters(spec: str) -> dict[str, inspect.Parameter]:
    """What the network's class declares, annotations resolved."""
    source, _, name = spec.partition(":")
    constructor: Any
    if source == "randprune":
        if name not in OWN_MODELS:
            raise InvalidInputError(f"Unknown model {_shown(spec)}.")
        constructor = OWN_MODELS[name]
    else:
        try:
            with torch.device("meta"):  # no memory, no random numbers
                constructor = type(build_model(spec))
        except (RuntimeError, NotImplementedError) as error:
            raise InvalidInputError(
                f"The options of {spec!r} cannot be checked: its constructor computes with values."
            ) from error
    inner = constructor.func if isinstance(constructor, partial) else constructor
    try:
        hints = typing.get_type_hints(inner.__init__ if inspect.isclass(inner) else inner)
    except (NameError, TypeError):
        hints = {}
    return {
        key: parameter.replace(annotation=hints.get(key, parameter.annotation))
        for key, parameter in inspect.signature(constructor).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def _fits(value: Any, annotation: Any, default: Any) -> bool:
    """Whether a JSON value is of the annotated type; where there is none, of the default's."""
    if annotation in (inspect.Parameter.empty, Any):
        return type(default) in (bool, int, float, str) and _fits(value, type(default), None)
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part, default) for part in inner)
    if origin is typing.Literal:
        return any(type(value) is type(part) and value == part for part in inner)
    if origin in (tuple, list, Sequence):
        parts = [part for part in inner if part is not Ellipsis]
        return (
            isinstance(value, list)
            and len(value) <= _LONGEST
            and all(any(_fits(entry, part, None) for part in parts) for entry in value)
        )
    if annotation in (type(None), None):
        return value is None
    if annotation in (bool, int, str):
        return type(value) is annotation and _is_plain(value)
    return annotation is float and type(value) in (int, float) and _is_plain(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return abs(value) <= _LARGEST
    if isinstance(value, float):
        return math.isfinite(value)
    # Names of layers and activations, but no path and no address.
    return isinstance(value, str) and len(value) <= _LONGEST and value.isidentifier()


@contextmanager
def _bounded(spec: str, tensors: int, size_bytes: int) -> Iterator[None]:
    """Inside, this thread's modules raise once they hold far more than was expected."""
    owner, count, held = threading.get_ident(), 0, 0
    most_tensors = _SLACK * tensors + _SLACK_TENSORS
    most_bytes = _SLACK * size_bytes + _SLACK_BYTES

    def register(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal count, held
        if tensor is None or threading.get_ident() != owner:
            return
        count, held = count + 1, held + tensor.nbytes
        if count > most_tensors or held > most_bytes:
            raise InvalidInputError(
                f"The model {spec!r} becomes far larger than the {tensors} tensors of "
                f"{size_bytes / 2**20:,.0f} MiB that the file says."
            )

    register_parameter: Any = hooks.register_module_parameter_registration_hook
    register_buffer: Any = hooks.register_module_buffer_registration_hook
    handles = [register_parameter(register), register_buffer(register)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
