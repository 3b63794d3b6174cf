"""From a checked header and its tensors to the network: the dense one built, each step repeated.

The dense network is the caller's, or one of the architectures that this package knows by name
(`randprune.zoo.known`): code that a file names is never imported. Every step is checked against the
network before it is repeated, and the result once more without values, on the meta device: it has
to run where the dense network runs, and to give outputs of the same shapes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_leaves

from randprune.artifact.header import ArtifactHeader
from randprune.errors import ArtifactError, InvalidInputError, RandpruneError
from randprune.graph.exits import counted
from randprune.graph.program import in_mode, private_copy
from randprune.graph.slicing import counting_layers
from randprune.lineage import CutStep, Shapes, WidenStep, named_tensors, tensor_shapes
from randprune.provenance import memory_bytes
from randprune.space import ChannelGroup, Space
from randprune.surgery import cut
from randprune.widening import widen_again
from randprune.zoo.known import build_known_model, is_known, plain_options

ModelSource = str | nn.Module | Callable[[], nn.Module]

_BYTES = 4  # of a number in float32
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def rebuild(
    header: ArtifactHeader,
    tensors: Mapping[str, torch.Tensor],
    model: ModelSource | None,
    path: Path,
) -> nn.Module:
    """The network, on the CPU; the global random state stays as it is.

    Args:
        header: of the file.
        tensors: of the file.
        model: as in `load`.
        path: of the file, for messages.

    Raises:
        ArtifactError: whatever in the file does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        network = dense_network(header, model, path)
        try:
            small = _repeat(header, network)
        except Exception as error:  # a forged step can break a network anywhere
            kind = "" if isinstance(error, RandpruneError) else f"{type(error).__name__}: "
            raise ArtifactError(f"The cuts in {path} cannot be repeated: {kind}{error}") from error
        _check_runs(header, network, small, path)
    put_tensors(header, small, tensors, path)
    return small


def dense_network(header: ArtifactHeader, model: ModelSource | None, path: Path) -> nn.Module:
    """The dense network, a new one or a copy of the one given, with the tensors that the file says.

    The global random state stays as it is.

    Raises:
        ArtifactError: the file does not name a known architecture, or the network is another one.
    """
    with torch.random.fork_rng(devices=[]):
        network = _built(header, model, path)
    _check_dense(header, network, path)
    return network


def _built(header: ArtifactHeader, model: ModelSource | None, path: Path) -> nn.Module:
    if isinstance(model, nn.Module):
        return private_copy(model)
    if model is None and not header.model:
        raise ArtifactError(
            f"The file {path} does not name its dense architecture (a {header.class_name} was "
            "saved). Pass it: load(path, model=constructor), a name such as 'randprune:resnet20', "
            "or an instance."
        )
    if model is None and not is_known(header.model):
        raise ArtifactError(
            f"The file {path} names code for its dense architecture, {header.model!r}, and code is "
            "never run because a file names it. If you know and trust that function, pass it: "
            "load(path, model=...), on the command line --model."
        )
    if model is None or isinstance(model, str):
        return _named(header, model or header.model, path)
    try:
        network = model()
    except TypeError as error:
        raise ArtifactError(
            f"The constructor {getattr(model, '__name__', model)!r} cannot be called without "
            f"arguments: {error}. Pass lambda: Network(...) with the dense network's arguments."
        ) from error
    if not isinstance(network, nn.Module):
        raise ArtifactError(
            "The 'model' parameter of load must give the dense nn.Module. "
            f"Got {type(network).__name__} instead."
        )
    return network


def _named(header: ArtifactHeader, name: str, path: Path) -> nn.Module:
    """A network by name, with the file's options where it is the file's name too."""
    options = header.options if name == header.model else {}
    try:
        if is_known(name):
            return build_known_model(
                name,
                options,
                tensors=len(header.dense),
                size_bytes=min(_bytes(header.dense), most_bytes()),
            )
        from randprune.zoo.models import build_model  # imports the caller's code

        return build_model(name, **plain_options(name, options))
    except InvalidInputError as error:
        raise ArtifactError(
            f"The dense architecture of {path} cannot be built: {error} "
            "Pass it: load(path, model=...)."
        ) from error


def most_bytes() -> int:
    """What a file may make of its own accord: half of this machine's memory."""
    return (memory_bytes() or 16 << 30) // 2


def _bytes(shapes: Shapes) -> int:
    return _BYTES * sum(math.prod(shape) for shape in shapes.values())


def _check_dense(header: ArtifactHeader, network: nn.Module, path: Path) -> None:
    """The network has the dense tensors that the file was made from; names the first that differs.

    A dense network in the file may have been given more tensors by its owner; the others are fixed.
    """
    shapes = tensor_shapes(network)
    for name in [*header.dense, *shapes]:
        wanted, got = header.dense.get(name), shapes.get(name)
        if wanted == got:
            continue
        theirs = f"has shape {got}" if got is not None else "is missing"
        ours = f"shape {wanted}" if wanted is not None else "no such tensor"
        raise ArtifactError(
            f"The file {path} belongs to another network than this {type(network).__name__} "
            f"(fingerprint {header.fingerprint or 'of a dense network'}): {name} {theirs}, the "
            f"file's dense network has {ours}. Pass the dense {header.class_name} as it was traced."
        )


def _repeat(header: ArtifactHeader, network: nn.Module) -> nn.Module:
    """The dense network after all steps, its values still those of the dense one."""
    small = network
    for step in header.steps:
        small = add_parameters(small, step.gained)
        check_places(step.space, small)
        if isinstance(step, CutStep):
            small = cut(small, step.space, step.selection, as_graph=step.as_graph)
        else:
            _check_growth(step, small)
            small = widen_again(small, step)
    return add_parameters(small, header.gained)


def check_places(space: Space, network: nn.Module) -> None:
    """Every place of every group exists in the network, and belongs to one channel alone.

    Raises:
        ArtifactError: names the first that does not.
    """
    shapes, layers = tensor_shapes(network), counting_layers(network)
    taken: dict[tuple[str, int], list[np.ndarray]] = {}
    for group in space.groups:
        for slot in group.slots:
            shape = shapes.get(slot.tensor)
            if shape is None or slot.dim >= len(shape) or slot.index.max() >= shape[slot.dim]:
                held = "no such tensor" if shape is None else f"shape {shape}"
                raise ArtifactError(
                    f"group {group.name!r} lies on axis {slot.dim} of {slot.tensor!r} up to "
                    f"position {slot.index.max()}, the network has {held}."
                )
            taken.setdefault((slot.tensor, slot.dim), []).append(slot.index.reshape(-1))
        for slot in group.sizes:
            if slot.tensor not in layers or slot.dim:
                raise ArtifactError(f"group {group.name!r} counts channels in {slot.tensor!r}.")
            _check_count(group, slot.index, network.get_submodule(slot.tensor), slot.tensor)
            taken.setdefault((slot.tensor, -1), []).append(slot.index.reshape(-1))
        for slot in group.numbers:
            _check_number(group, slot.index.size, network, slot.tensor)
    for (tensor, dim), parts in taken.items():
        places = np.concatenate(parts)
        if len(np.unique(places)) < len(places):
            raise ArtifactError(f"two channels claim one place on axis {dim} of {tensor!r}.")


def _check_count(group: ChannelGroup, index: Any, layer: nn.Module, name: str) -> None:
    channels = layer.num_features if isinstance(layer, _NormBase) else layer.num_channels
    if index.max() >= int(channels):  # type: ignore[arg-type]
        raise ArtifactError(
            f"group {group.name!r} counts channel {index.max()} of {channels} in {name!r}."
        )


def _check_number(group: ChannelGroup, counts: int, network: nn.Module, name: str) -> None:
    """A number that a cut changes is a plain integer of a module of the network's own."""
    path, _, attribute = name.rpartition(".")
    holder = dict(network.named_modules(remove_duplicate=False)).get(path)
    value = None if holder is None else vars(holder).get(attribute)
    library = type(holder).__module__.startswith("torch.nn.")
    if type(value) is not int or library or attribute.startswith("_") or value < counts:
        raise ArtifactError(f"group {group.name!r} counts {counts} in {name!r}, which cannot be.")


def _check_growth(step: WidenStep, network: nn.Module) -> None:
    """The wide network fits into memory."""
    shapes = {name: list(shape) for name, shape in tensor_shapes(network).items()}
    for ours, theirs in zip(step.space.groups, step.wide.groups, strict=True):
        for slot in ours.slots:
            more = (theirs.width - ours.width) * slot.index.shape[1]
            shapes[slot.tensor][slot.dim] += more
    needed = _bytes({name: tuple(shape) for name, shape in shapes.items()})
    if needed > most_bytes():
        raise ArtifactError(f"its wide network needs {needed / 2**30:,.0f} GiB.")


def add_parameters(network: nn.Module, shapes: Shapes) -> nn.Module:
    """The network (a copy where it gains any) with more parameters of these shapes, zero.

    Raises:
        ArtifactError: a layer that is not there, or something that it has already.
    """
    if not shapes:
        return network
    if (needed := _bytes(shapes)) > most_bytes():
        raise ArtifactError(f"what it gained needs {needed / 2**30:,.0f} GiB.")
    network = private_copy(network)
    modules = dict(network.named_modules(remove_duplicate=False))
    for name, shape in shapes.items():
        prefix, _, attribute = name.rpartition(".")
        owner = modules.get(prefix)
        free = attribute.isidentifier() and not attribute.startswith("_")
        if owner is None or not free or getattr(owner, attribute, None) is not None:
            raise ArtifactError(f"the network cannot have gained a parameter {name!r}.")
        dtypes = [p.dtype for p in owner.parameters(recurse=False)]
        zeros = torch.zeros(shape, dtype=next(iter(dtypes), torch.float32))
        owner.register_parameter(attribute, nn.Parameter(zeros))
    return network


def put_tensors(
    header: ArtifactHeader, network: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path
) -> None:
    """Put the stored tensors into the cut network (our own copy), shared ones shared."""
    own = named_tensors(network)
    source = {**{name: name for name in tensors}, **header.aliases}
    if odd := sorted(own.keys() ^ source.keys()):
        raise ArtifactError(
            f"The file {path} and the network cut from this {type(network).__name__} disagree "
            f"about {odd[0]!r} ({len(odd)} such tensors). Save the network again."
        )
    for name, stored in source.items():
        _check_tensor(name, own[name], tensors.get(stored), path)
    if odd := sorted(header.strides.keys() - tensors.keys()):
        raise ArtifactError(f"The file {path} has strides but no values of {odd[0]!r}.")
    placed: dict[str, torch.Tensor] = {}
    for name, stored in source.items():
        if stored not in placed:
            # Fresh memory: products of matrices may round differently where torch's alignment is
            # missing, which the buffers of a file reader do not have.
            read = tensors[stored]
            strides = _strides(header, stored, read, path)
            tensor = torch.empty_strided(read.shape, strides, dtype=read.dtype).copy_(read)
            if isinstance(own[name], nn.Parameter):
                trained = own[name].requires_grad and tensor.is_floating_point()
                tensor = nn.Parameter(tensor, requires_grad=trained)
            placed[stored] = tensor
        prefix, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(prefix), attribute, placed[stored])


def _check_tensor(name: str, own: torch.Tensor, stored: torch.Tensor | None, path: Path) -> None:
    """A stored tensor can take the place of the network's: same shape, same kind of number."""
    if stored is None:
        raise ArtifactError(f"The file {path} gives {name!r} the values of a tensor it lacks.")
    if stored.shape != own.shape:
        raise ArtifactError(
            f"The file {path} holds {name!r} of shape {tuple(stored.shape)}, its cuts leave "
            f"{tuple(own.shape)}. Save the network again."
        )
    alike = stored.dtype in _FLOATS if own.is_floating_point() else stored.dtype == own.dtype
    if not alike:
        raise ArtifactError(
            f"The file {path} holds {name!r} as {stored.dtype}, the network has {own.dtype}."
        )


def _strides(
    header: ArtifactHeader, name: str, tensor: torch.Tensor, path: Path
) -> tuple[int, ...]:
    """Strides of a dense tensor without overlaps: the stored ones, else the default."""
    default = torch.empty(tensor.shape, device="meta").stride()
    strides = header.strides.get(name)
    if strides is None:
        return default
    axes = sorted((s, size) for s, size in zip(strides, tensor.shape, strict=False) if size > 1)
    covered = 1
    for stride, size in axes:
        covered = covered * size if stride == covered else 0
    if len(strides) != tensor.ndim or (tensor.numel() and covered != tensor.numel()):
        raise ArtifactError(
            f"The file {path} gives {name!r} of shape {tuple(tensor.shape)} the strides {strides}, "
            "which do not fill its memory."
        )
    return strides


def _check_runs(header: ArtifactHeader, dense: nn.Module, small: nn.Module, path: Path) -> None:
    """Where the dense network runs without values, so does the cut one, with outputs alike."""
    spaces = [step.space for step in header.steps]
    if not spaces or any(space.within for space in spaces):
        return  # of a network that cannot be traced as a whole, the values decide what it computes
    chosen = [set(space.outputs) for space in spaces if space.outputs is not None]
    numbers = tuple(sorted(set.intersection(*chosen))) if chosen else None
    expected = _output_shapes(dense, spaces[0], numbers)
    if isinstance(expected, Exception):  # it needs values, or other inputs: nothing to compare
        return
    got = _output_shapes(small, spaces[0], numbers)
    if isinstance(got, Exception):
        reason = (str(got).splitlines() or [""])[0]
        raise ArtifactError(
            f"The network in {path} does not run ({type(got).__name__}: {reason}): its cuts do not "
            "fit each other. Save or fetch the file again."
        )
    if got != expected:
        raise ArtifactError(
            f"The network in {path} gives outputs of shapes {got}, its dense network {expected}: "
            "a cut never changes them. Save or fetch the file again."
        )


def example_inputs(space: Space, device: str = "cpu") -> tuple[torch.Tensor, ...]:
    """Zeros in the shapes and dtypes that the space was traced with."""
    return tuple(
        torch.zeros(shape, dtype=getattr(torch, dtype), device=device)
        for shape, dtype in space.inputs
    )


def _output_shapes(
    network: nn.Module, space: Space, numbers: tuple[int, ...] | None
) -> list[tuple[int, ...]] | Exception:
    """Shapes of the output tensors that count for the traced inputs, or why there are none."""
    try:
        with torch.no_grad():
            outputs = in_mode(_without_values(network))(*example_inputs(space, "meta"))
        leaves = tree_leaves(counted(outputs, numbers))
        return [tuple(x.shape) for x in leaves if isinstance(x, torch.Tensor)]
    except Exception as error:  # whatever a forward raises
        return error


def _without_values(network: nn.Module) -> nn.Module:
    """A copy on the meta device that never copied a value."""
    memo: dict[int, Any] = {}
    for tensor in named_tensors(network).values():
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = (
            nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
        )
    return copy.deepcopy(network, memo)
