"""The bytes of an artefact: tensors and header in one .safetensors file, under one checksum."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from randprune.artifact import documents
from randprune.artifact.header import FORMAT, ArtifactHeader
from randprune.errors import ArtifactError, InvalidInputError
from randprune.tensor_file import digest, metadata_of

_KEY = "randprune"


def pack(header: ArtifactHeader, tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The content of the file.

    Args:
        header: its digest is computed here.
        tensors: contiguous, on the CPU.

    Raises:
        ArtifactError: safetensors cannot hold one of the tensors, or `unpack` would refuse the
            header.
        InvalidInputError: metadata or options that JSON cannot hold.
    """
    document = header.to_json()
    try:
        document["digest"] = _digest(document, tensors)
        text = json.dumps(document, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"The 'metadata' and 'options' parameters of save must be JSON-ready: {error}."
        ) from error
    try:
        ArtifactHeader.from_json(documents.parse(text))
    except ArtifactError as error:
        raise ArtifactError(f"This network cannot be saved: {error}.") from error
    try:
        return safetensors.torch.save(dict(tensors), {_KEY: text})
    except KeyError as error:
        name = next(name for name, tensor in tensors.items() if tensor.dtype == error.args[0])
        raise ArtifactError(f"safetensors cannot hold {name}: its dtype is {error}.") from error


def unpack(path: Path) -> tuple[ArtifactHeader, dict[str, torch.Tensor]]:
    """Header and tensors of a file; its checksum and every value of the header are checked.

    Raises:
        ArtifactError: the file is missing, no regular file, corrupt, or not randprune's.
    """
    content = _content(path)
    try:
        tensors = safetensors.torch.load(content)
        metadata = metadata_of(content)
    except Exception as error:  # safetensors and torch raise many kinds for damaged files
        raise ArtifactError(
            f"The file {path} is not a .safetensors file, or it is corrupt or truncated: {error}. "
            "Save or fetch it again."
        ) from error
    if _KEY not in metadata:
        raise ArtifactError(
            f"The file {path} holds {len(tensors)} tensors but was not written by randprune.save. "
            "Plain weights are read by randprune.zoo.weights.load_weights."
        )
    try:
        document = documents.parse(metadata[_KEY])
        if document.get("format") != FORMAT:
            raise _Complete(
                f"The file {path} has format {document.get('format')!r}, this version of randprune "
                f"reads {FORMAT}. Use the version that wrote it: {document.get('versions')!r}."
            )
        stated = document.pop("digest", None)
        if stated != _digest(document, tensors):
            raise _Complete(
                f"The file {path} does not match its checksum: it was altered or damaged. "
                "Save or fetch it again."
            )
        for name in tensors:
            documents.name(name, "the name of a tensor")
        return ArtifactHeader.from_json({**document, "digest": stated}), tensors
    except _Complete as error:
        raise ArtifactError(str(error)) from None
    except Exception as error:  # a forged document can break the parser itself (its depth)
        kind = "" if isinstance(error, ArtifactError) else f"{type(error).__name__}: "
        raise ArtifactError(
            f"The header of {path} is damaged or forged: {kind}{error}. "
            "Save or fetch the file again."
        ) from error


class _Complete(ArtifactError):
    """An error that says all there is to say."""


def _content(path: Path) -> bytes:
    try:
        # A device or a pipe might never end; a folder says so itself.
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ArtifactError(f"{path} is not a regular file. Save the network to a file first.")
        return path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"The file {path} does not exist. Check the path.") from None
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error or "it does not fit into memory"
        raise ArtifactError(f"The file {str(path)!r} cannot be read: {reason}.") from error


def _digest(document: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    return digest(tensors, json.dumps(document, sort_keys=True).encode())
