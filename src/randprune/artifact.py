"""A pruned network as one .safetensors file: tensors, and a JSON header that tells how to rebuild.

    save(small, "small.safetensors", model="randprune:resnet20")
    load("small.safetensors")                          # by the stored name
    load("small.safetensors", model=MyNetwork)         # on the dense architecture's constructor

The header holds the dense architecture's name, the cuts (space and selection), the widenings
(both spaces) and a checksum of everything. Loading builds the dense network, repeats these steps
and puts the stored tensors in place: bit for bit, in their dtypes and memory layouts. Nothing in
the file is code, and nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from randprune.atomic import write_file
from randprune.errors import ArtifactError, InvalidInputError, RandpruneError
from randprune.graph.program import in_mode, private_copy
from randprune.lineage import (
    CutStep,
    Shapes,
    Step,
    lists_of,
    named_tensors,
    plan_of,
    shapes_of,
    step_from_json,
    tensor_shapes,
)
from randprune.surgery import cut
from randprune.widening import widen_again

ModelSource = str | nn.Module | Callable[[], nn.Module]

_FORMAT = 1
_KEY = "randprune"


@dataclass(frozen=True, slots=True)
class ArtifactHeader:
    """What a file says about its network, tensors aside.

    Attributes:
        model: name of the dense architecture for `randprune.zoo.models.build_model`, "" if unknown.
        options: what `build_model` gets besides the name, such as ``{"num_classes": 100}``.
        class_name: of the network that was saved.
        versions: of randprune and torch that wrote the file.
        steps: the cuts and widenings that lead from the dense network to this one; empty for a
            dense network.
        dense: shape of every tensor of the dense network.
        gained: shape of every tensor that came after the last cut, such as a convolution's bias.
        aliases: other names of a stored tensor -> the name it is stored under.
        strides: of the tensors that do not lie in memory in the default order, by name.
        metadata: whatever was given to `save`, JSON-ready.
        digest: sha256 of the header and all tensors.
    """

    model: str
    options: Mapping[str, Any]
    class_name: str
    versions: Mapping[str, str]
    steps: tuple[Step, ...]
    dense: Shapes
    gained: Shapes = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    strides: Shapes = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the first space, "" for a dense network."""
        return self.steps[0].space.fingerprint if self.steps else ""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict, without the digest; `from_json` gives an equal header back."""
        return {
            "format": _FORMAT,
            "model": self.model,
            "options": dict(self.options),
            "class": self.class_name,
            "versions": dict(self.versions),
            "fingerprint": self.fingerprint,
            "cuts": [step.to_json() for step in self.steps],
            "dense": lists_of(self.dense),
            "gained": lists_of(self.gained),
            "aliases": dict(self.aliases),
            "strides": lists_of(self.strides),
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ArtifactHeader:
        """The header that `to_json` wrote; raises whatever a malformed document leads to."""
        return cls(
            model=document["model"],
            options=document["options"],
            class_name=document["class"],
            versions=document["versions"],
            steps=tuple(step_from_json(step) for step in document["cuts"]),
            dense=shapes_of(document["dense"]),
            gained=shapes_of(document["gained"]),
            aliases=document["aliases"],
            strides=shapes_of(document.get("strides", {})),
            metadata=document["metadata"],
            digest=document["digest"],
        )


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
        model: name of the dense architecture as `build_model` knows it, so that `load` needs
            nothing but the file.
        options: what `build_model` needs besides the name, such as ``{"num_classes": 100}``.
        metadata: anything JSON-ready to keep with the network: accuracies, provenance.

    Raises:
        ArtifactError: the network was rebuilt since the cut, or holds what safetensors cannot.
        StorageError: the file cannot be written; nothing half-written is left.
    """
    network = _unwrap(network)
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
    try:
        document = header.to_json()
        text = json.dumps({**document, "digest": _digest(document, stored)}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"The 'metadata' and 'options' parameters of save must be JSON-ready: {error}."
        ) from error
    try:
        content = safetensors.torch.save(stored, {_KEY: text})
    except KeyError as error:
        name = next(name for name, tensor in stored.items() if tensor.dtype == error.args[0])
        raise ArtifactError(f"safetensors cannot hold {name}: its dtype is {error}.") from error
    return write_file(path, content)


def load(
    path: str | os.PathLike[str],
    model: ModelSource | None = None,
    *,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """The network that `save` wrote, equal to the last bit, in evaluation mode.

    Args:
        path: the file.
        model: the *dense* architecture: its constructor (called without arguments), its name for
            `build_model`, or an instance (copied, its weights do not matter). Default: the name
            stored in the file.
        device: where the tensors go.

    Raises:
        ArtifactError: the file is missing, corrupt, or not randprune's; or it belongs to another
            architecture, and then the first tensor that differs is named.
    """
    header, tensors = _read(Path(path))
    network = _dense_network(header, model, Path(path))
    _check_dense(header, network, Path(path))
    try:
        for step in header.steps:
            _add_parameters(network, step.gained)
            if isinstance(step, CutStep):
                network = cut(network, step.space, step.selection, as_graph=step.as_graph)
            else:
                network = widen_again(network, step)
        _add_parameters(network, header.gained)
    except (RandpruneError, AttributeError) as error:
        raise ArtifactError(f"The cuts in {path} cannot be repeated: {error}") from error
    _put_tensors(header, network, tensors, Path(path))
    return in_mode(network.to(device))


def read_header(path: str | os.PathLike[str]) -> ArtifactHeader:
    """What the file says about its network; checks the whole file like `load`."""
    return _read(Path(path))[0]


def _unwrap(network: nn.Module) -> nn.Module:
    """The network inside torch.compile's and data-parallel training's wrappers."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(network, parallel):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        else:
            return network


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


def _digest(document: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[ArtifactHeader, dict[str, torch.Tensor]]:
    """Header and tensors of a file, its checksum checked."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"The file {path} does not exist. Check the path.") from None
    except OSError as error:
        raise ArtifactError(f"The file {path} cannot be read: {error.strerror}.") from error
    try:
        tensors = safetensors.torch.load(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    except Exception as error:  # safetensors and torch raise many kinds for damaged files
        raise ArtifactError(
            f"The file {path} is no .safetensors file, or corrupt or truncated: {error}. "
            "Save or fetch it again."
        ) from error
    if _KEY not in metadata:
        raise ArtifactError(
            f"The file {path} holds {len(tensors)} tensors but was not written by randprune.save. "
            "Plain weights are read by randprune.zoo.weights.load_weights."
        )
    try:
        document = json.loads(metadata[_KEY])
        if document["format"] != _FORMAT:
            raise ArtifactError(
                f"The file {path} has format {document['format']}, this version of randprune reads "
                f"{_FORMAT}. Use the version that wrote it: {document.get('versions')}."
            )
        header = ArtifactHeader.from_json(document)
        content_of = {key: value for key, value in document.items() if key != "digest"}
        sound = header.digest == _digest(content_of, tensors)
    except ArtifactError:
        raise
    except Exception as error:  # a damaged document can break anywhere
        raise ArtifactError(
            f"The header of {path} is damaged ({type(error).__name__}: {error}). "
            "Save or fetch the file again."
        ) from error
    if not sound:
        raise ArtifactError(
            f"The file {path} does not match its checksum: it was altered or damaged. "
            "Save or fetch it again."
        )
    return header, tensors


def _dense_network(header: ArtifactHeader, model: ModelSource | None, path: Path) -> nn.Module:
    """A new dense network, or a copy of the one given; the global random state stays as it is."""
    if isinstance(model, nn.Module):
        return private_copy(model)
    if model is None and not header.model:
        raise ArtifactError(
            f"The file {path} does not name its dense architecture (a {header.class_name} was "
            "saved). Pass it: load(path, model=constructor), a name such as 'randprune:resnet20', "
            "or an instance."
        )
    with torch.random.fork_rng(devices=[]):
        if model is None or isinstance(model, str):
            from randprune.zoo.models import build_model  # needed for named models only

            name = model or header.model
            return build_model(name, **(header.options if name == header.model else {}))
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


def _add_parameters(network: nn.Module, shapes: Shapes) -> None:
    """Give our own copy the parameters that the stored network had gained, values to come."""
    for name, shape in shapes.items():
        prefix, _, attribute = name.rpartition(".")
        parameter = nn.Parameter(torch.zeros(shape))
        network.get_submodule(prefix).register_parameter(attribute, parameter)


def _put_tensors(
    header: ArtifactHeader, network: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path
) -> None:
    """Put the stored tensors into the cut network (our own copy), shared ones shared."""
    own = named_tensors(network)
    source = {**{name: name for name in tensors}, **header.aliases}
    if odd := sorted(own.keys() ^ source.keys()):
        raise ArtifactError(
            f"The file {path} and the network cut from this {type(network).__name__} disagree "
            f"about {odd[0]} ({len(odd)} such tensors). Save the network again."
        )
    placed: dict[str, torch.Tensor] = {}
    for name, stored in source.items():
        if stored not in placed:
            # Fresh memory: products of matrices may round differently where torch's alignment is
            # missing, which the buffers of a file reader do not have.
            read = tensors[stored]
            strides = header.strides.get(stored, torch.empty(read.shape, device="meta").stride())
            tensor = torch.empty_strided(read.shape, strides, dtype=read.dtype).copy_(read)
            if isinstance(own[name], nn.Parameter):
                trained = own[name].requires_grad and tensor.is_floating_point()
                tensor = nn.Parameter(tensor, requires_grad=trained)
            placed[stored] = tensor
        prefix, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(prefix), attribute, placed[stored])
