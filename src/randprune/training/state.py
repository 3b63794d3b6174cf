"""Where a training run stands, on disk: one .safetensors file, written whole or not at all.

Tensors (weights, optimizer, averages) are the file's tensors; everything else is JSON in its
header, with a checksum of both. Nothing is pickled. The file before the last one is kept, so that a
damaged or missing last file costs one interval, not the run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from randprune.atomic import write_file
from randprune.errors import ArtifactError, InvalidInputError, StorageError

_FORMAT = 1
_BYTES = torch.uint8
_KEY = "randprune.training"
_FILE = "training.safetensors"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where and how often to save; at the end of every epoch in any case.

    Attributes:
        path: a .safetensors file, or a folder that will hold `training.safetensors`.
        every_steps: also save after so many steps within an epoch.
    """

    path: str | os.PathLike[str]
    every_steps: int | None = None

    def __post_init__(self) -> None:
        if self.every_steps is not None and self.every_steps < 1:
            raise InvalidInputError(
                "The 'every_steps' parameter of Checkpoint must be at least 1. "
                f"Got {self.every_steps} instead."
            )

    @property
    def file(self) -> Path:
        """The last state."""
        path = Path(self.path)
        return path if path.suffix == ".safetensors" else path / _FILE

    @property
    def previous(self) -> Path:
        """The state before."""
        return self.file.with_suffix(".previous.safetensors")


@dataclass(frozen=True, slots=True, eq=False)
class TrainState:
    """Everything that a run needs to go on exactly where it was.

    Attributes:
        identity: what the run is (recipe, weights it began with, data, teacher), JSON-ready.
        epoch, step: whole epochs done, and steps done of the next one.
        tensors: by name, on the CPU.
        books: history, counts and seconds so far, JSON-ready.
    """

    identity: Mapping[str, Any]
    epoch: int
    step: int
    tensors: Mapping[str, Tensor]
    books: Mapping[str, Any]


def weights_digest(model: nn.Module) -> str:
    """Hash of names, dtypes, shapes and values of all parameters and persistent buffers."""
    return _digest(dict(model.state_dict()), "")


def save_state(checkpoint: Checkpoint, state: TrainState) -> None:
    """Write the state beside the last one, then swap them; the last one stays as `previous`.

    Raises:
        StorageError: the folder cannot be written or the disk is full; the state before is intact.
    """
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in state.tensors.items()}
    document = {
        "format": _FORMAT,
        "identity": state.identity,
        "epoch": state.epoch,
        "step": state.step,
        "books": state.books,
    }
    text = json.dumps(document, sort_keys=True)
    header = {_KEY: text, "sha256": _digest(tensors, text)}
    data = safetensors.torch.save(tensors, metadata=header)
    file = checkpoint.file
    # Staged first: a full disk must be met while the last state still has its name.
    staged = write_file(file.with_suffix(".next.safetensors"), data)
    try:
        if file.exists():
            os.replace(file, checkpoint.previous)
        os.replace(staged, file)
    except OSError as error:
        raise StorageError(f"{file} cannot be replaced: {error.strerror or error}.") from error


def load_state(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> TrainState | None:
    """The newest intact state of this very run; None where nothing was saved yet.

    Raises:
        ArtifactError: files are there, but none is intact.
        InvalidInputError: the state is that of another run; the message names what differs.
    """
    problems = []
    for file in (checkpoint.file, checkpoint.previous):
        if not file.exists():
            continue
        try:
            state = _read(file)
        except ArtifactError as error:
            problems.append(str(error))
            continue
        if problems:
            _log.warning("%s Going on from the state before, %s.", problems[0], file.name)
        _check_identity(file, state.identity, identity)
        return state
    if problems:
        raise ArtifactError(
            f"{' '.join(problems)} No intact training state is left; delete the "
            f"{'files' if len(problems) > 1 else 'file'} to train from the start."
        )
    return None


def _read(file: Path) -> TrainState:
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        text = header[_KEY]
        document = json.loads(text)
        damaged = header.get("sha256") != _digest(tensors, text)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(f"{file} is not an intact training state ({reason}).") from error
    if damaged:
        raise ArtifactError(f"{file} is damaged: its checksum does not match.")
    if document["format"] != _FORMAT:
        raise ArtifactError(
            f"{file} has format {document['format']!r}; this version reads format {_FORMAT}."
        )
    return TrainState(
        document["identity"], document["epoch"], document["step"], tensors, document["books"]
    )


def _check_identity(file: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    theirs, ours = _flat(stored), _flat(json.loads(json.dumps(wanted)))
    differing = [
        f"{key} {theirs.get(key)!r} there, {ours.get(key)!r} here"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key)
    ]
    if differing:
        raise InvalidInputError(
            f"{file} is the training state of another run: {'; '.join(differing[:3])}. "
            "Give this run another checkpoint path, or delete the file."
        )


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        if tensor.numel():
            # As bytes: numpy has no bfloat16.
            digest.update(tensor.reshape(-1).view(dtype=_BYTES).numpy().data)
    return digest.hexdigest()[:32]
