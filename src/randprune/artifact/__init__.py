"""A pruned network as one .safetensors file: tensors, and a JSON header that tells how to rebuild.

    save(small, "small.safetensors", model="randprune:resnet20")
    load("small.safetensors")                          # by the stored name
    load("small.safetensors", model=MyNetwork)         # on the dense architecture's constructor

The header holds the dense architecture's name, the cuts (space and selection), the widenings
(both spaces) and a checksum of everything. Loading builds the dense network, repeats these steps
and puts the stored tensors in place: bit for bit, in their dtypes and memory layouts. Nothing in
the file is code, nothing is ever unpickled, and no code is imported because the file names it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from randprune.artifact.file import pack, unpack
from randprune.artifact.header import ArtifactHeader
from randprune.artifact.proof import Check, Difference, check
from randprune.artifact.rebuild import ModelSource, rebuild
from randprune.atomic import checked_path, write_file
from randprune.errors import ArtifactError, InvalidInputError, quoted
from randprune.graph.entrance import plain_module
from randprune.graph.program import in_mode
from randprune.lineage import Shapes, named_tensors, plan_of, tensor_shapes

HUB_FILE = "model.safetensors"
"""The network's file in a folder of the Hugging Face Hub's layout."""

__all__ = [
    "HUB_FILE",
    "ArtifactHeader",
    "Check",
    "Difference",
    "ModelSource",
    "check",
    "load",
    "read_header",
    "save",
]


def save(
    network: nn.Module,
    path: str | os.PathLike[str],
    *,
    model: str = "",
    options: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a network to one file, whole or not at all; returns its path.

    Args:
        network: what `cut` returned, also after recovery or training or as a copy; or a dense
            network. Left unchanged.
        path: the file, by convention ``*.safetensors``; replaced if it exists.
        model: name of the dense architecture as `build_model` knows it. With one of
            ``randprune:``, ``torchvision:`` or ``timm:``, `load` needs nothing but the file.
        options: what `build_model` needs besides the name, such as ``{"num_classes": 100}``.
        metadata: anything JSON-ready to keep with the network: accuracies, provenance.

    Raises:
        ArtifactError: the network was rebuilt since the cut, or holds what safetensors cannot.
        StorageError: the file cannot be written; nothing half-written is left.
    """
    network, path = plain_module(network, "save", "network"), checked_path(path, "path")
    tensors, aliases = _distinct_tensors(network)
    plan = plan_of(network)
    if plan is None:
        _reject_inner_cut(network)
    else:
        _check_unaltered(network, plan.cut)
    header = ArtifactHeader(
        model=model,
        options=dict(options or {}),
        class_name=type(network).__qualname__,
        versions=_versions(),
        steps=plan.steps if plan else (),
        dense=plan.dense if plan else tensor_shapes(network),
        gained=plan.gained(network) if plan else {},
        aliases=aliases,
        strides={name: strides for name, t in tensors.items() if (strides := _odd_strides(t))},
        metadata=dict(metadata or {}),
    )
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return write_file(path, pack(header, stored))


def load(
    path: str | os.PathLike[str],
    model: ModelSource | None = None,
    *,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """The network that `save` wrote, equal to the last bit, in evaluation mode.

    Args:
        path: the file, or a folder with a model.safetensors as the Hugging Face Hub has it. It may
            be a stranger's: what it says is checked before it is used.
        model: the *dense* architecture: its constructor (called without arguments), its name for
            `build_model`, or an instance (copied, its weights do not matter). Default: the name
            stored in the file, if it is one of ``randprune:``, ``torchvision:`` or ``timm:``; a
            function that a file names is never imported.
        device: where the tensors go.

    Raises:
        ArtifactError: the file is missing, corrupt, or not randprune's; or it belongs to another
            architecture, and then the first tensor that differs is named.
    """
    file = _file(path)
    header, tensors = unpack(file)
    return in_mode(rebuild(header, tensors, model, file).to(device))


def read_header(path: str | os.PathLike[str]) -> ArtifactHeader:
    """What the file says about its network; checks the whole file like `load`."""
    return unpack(_file(path))[0]


def _file(path: object) -> Path:
    """The path of a file to read; of a folder that has one, its network's file."""
    if not isinstance(path, str | os.PathLike):
        raise InvalidInputError(
            "The 'path' parameter of load must be a file name: a text or a pathlib.Path. "
            f"Got {quoted(path)} instead."
        )
    inside = Path(path) / HUB_FILE
    return inside if inside.is_file() else Path(path)


def _distinct_tensors(network: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Every tensor under its first name, and its other names -> the first one."""
    first: dict[int, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in named_tensors(network).items():
        if tensor.is_meta:
            raise ArtifactError(f"{name} has no values (meta device). Load weights before saving.")
        if tensor.layout is not torch.strided:
            raise ArtifactError(f"{name} is sparse ({tensor.layout}). Make it dense first.")
        if id(tensor) in first:
            aliases[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            tensors[name] = tensor
    extra = [key for key in network.state_dict() if key.endswith("_extra_state")]
    if extra:
        raise ArtifactError(
            f"{extra[0]} is state that only pickle could store. Save a network without extra state."
        )
    return tensors, aliases


def _odd_strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """The strides of a dense tensor where they are not the default; else none.

    Those of axes of one count too: by them a convolution takes its weight for channels_last, and
    another kernel rounds differently.
    """
    dense = torch.empty_like(tensor, device="meta", memory_format=torch.preserve_format)
    default = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    strides = tensor.stride()
    # Overlapping or spread strides (views of larger memory) are not kept by `empty_like` either.
    return strides if strides == dense.stride() != default.stride() else ()


def _reject_inner_cut(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if plan_of(module) is not None:
            raise ArtifactError(
                f"The part {name!r} of this {type(network).__name__} was cut, not the whole. Save "
                f"that part (save(network.{name}, ...)), or cut the whole network."
            )


def _check_unaltered(network: nn.Module, after_cut: Shapes) -> None:
    """The network still has what `cut` left; it may have gained tensors, such as biases."""
    shapes = tensor_shapes(network)
    for name, shape in after_cut.items():
        if shapes.get(name) != shape:
            now = f"has shape {shapes[name]}" if name in shapes else "is gone"
            raise ArtifactError(
                f"{name} had shape {shape} after the cut and now {now}: the network was rebuilt, "
                "and loading could not repeat that. Make such changes before trace and cut."
            )


def _versions() -> dict[str, str]:
    import randprune  # the package's own version; a module-level import would be circular

    return {"randprune": randprune.__version__, "torch": str(torch.__version__)}
