"""Named tensors in one .safetensors file, under a checksum of names, dtypes, shapes and values.

safetensors notices a file that is cut off, but not one bit that has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from randprune.atomic import write_file
from randprune.errors import ArtifactError

_KEY, _HEAD = "sha256", "head"


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    head: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Write the tensors whole or not at all; returns them as `read_tensors` gives them back.

    Args:
        head: a JSON-ready document that is kept with them, under the same checksum.

    Raises:
        StorageError: the file cannot be written.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = {} if head is None else {_HEAD: json.dumps(head)}
    found = digest(stored, text.get(_HEAD, "").encode())
    write_file(path, safetensors.torch.save(stored, {**text, _KEY: found}))
    return stored


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors that `write_tensors` wrote, on the CPU.

    Raises:
        ArtifactError: the file is missing or damaged, or has no checksum.
    """
    return read_with_head(path)[1]


def read_with_head(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document that `write_tensors` kept with the tensors, {} without one, and the tensors.

    Raises:
        ArtifactError: the file is missing or damaged, or has no checksum.
    """
    try:
        content = Path(path).read_bytes()
        tensors = safetensors.torch.load(content)
        metadata = metadata_of(content)
    except Exception as error:  # safetensors and torch raise many kinds for damaged files
        raise ArtifactError(f"The file {path} cannot be read: {error}. Make it again.") from error
    head = metadata.get(_HEAD, "")
    if metadata.get(_KEY) != digest(tensors, head.encode()):
        raise ArtifactError(
            f"The file {path} does not match its checksum: it was altered or damaged. "
            "Make it again."
        )
    return json.loads(head) if head else {}, tensors


def metadata_of(content: bytes) -> dict[str, Any]:
    """The texts that a .safetensors file holds beside its tensors."""
    size = int.from_bytes(content[:8], "little")
    found: dict[str, Any] = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    return found


def digest(tensors: Mapping[str, Tensor], head: bytes = b"") -> str:
    """sha256 over `head` and names, dtypes, shapes and values of CPU tensors, as 64 hex digits."""
    found = hashlib.sha256(head)
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
