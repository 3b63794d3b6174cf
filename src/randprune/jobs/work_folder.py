"""What a job keeps on the disk until it ends, so that a resumed one only reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from randprune.artifact import load, save
from randprune.atomic import write_file
from randprune.errors import ArtifactError, StorageError
from randprune.graph.program import in_mode
from randprune.store import content_hash
from randprune.tensor_file import read_tensors, write_tensors


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """Tensors, networks and documents by name in one folder, each written whole or not at all.

    Several processes of a job may share it: whoever needs a thing first makes it.
    """

    folder: Path

    def tensors(self, name: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors kept under `name`, made and written first where there are none."""
        known = self.kept_tensors(name)
        return self.keep_tensors(name, make()) if known is None else known

    def kept_tensors(self, name: str) -> dict[str, Tensor] | None:
        """The tensors kept under `name`, None where there are none or their file is damaged."""
        path = self.file(name)
        if not path.exists():
            return None
        try:
            return read_tensors(path)
        except ArtifactError:
            path.unlink(missing_ok=True)
            return None

    def keep_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Keep tensors under `name`; they come back as they are kept."""
        return write_tensors(self.file(name), tensors)

    def network(self, name: str, dense: nn.Module) -> nn.Module | None:
        """The network kept under `name`, None where there is none or its file is damaged.

        `dense` is what it was cut from; the network comes with its training flag.
        """
        path = self.file(name)
        if not path.exists():
            return None
        try:
            return in_mode(load(path, model=dense), dense.training)
        except ArtifactError:
            path.unlink(missing_ok=True)
            return None

    def made_network(self, name: str, dense: nn.Module) -> nn.Module:
        """The network kept under `name` by an earlier step.

        Raises:
            StorageError: it is gone, or its file is damaged.
        """
        found = self.network(name, dense)
        if found is None:
            raise self._gone(self.file(name))
        return found

    def keep_network(self, name: str, network: nn.Module) -> nn.Module:
        """Keep a network under `name`; gives it back."""
        save(network, self.file(name))
        return network

    def document(self, name: str) -> dict[str, Any] | None:
        """The JSON document kept under `name`, None where there is none."""
        try:
            found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        return found

    def made_document(self, name: str) -> dict[str, Any]:
        """The JSON document kept under `name` by an earlier step.

        Raises:
            StorageError: it is gone.
        """
        found = self.document(name)
        if found is None:
            raise self._gone(self.folder / f"{name}.json")
        return found

    def keep_document(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep a JSON document under `name`."""
        write_file(self.folder / f"{name}.json", json.dumps(document).encode())

    def file(self, name: str) -> Path:
        """Where the tensors or the network of this name are kept."""
        return self.folder / f"{name}.safetensors"

    def _gone(self, path: Path) -> StorageError:
        return StorageError(
            f"The file {path.name}, which an earlier step has written, is gone from "
            f"{path.parent}, or damaged. Give the same command again: it makes it once more."
        )

    def inside(self, name: str) -> WorkFolder:
        """A folder of this name within this one."""
        return WorkFolder(self.folder / name)

    def remove(self) -> None:
        """Forget everything, and the folder above where nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # another job of this output folder is not finished
            self.folder.parent.rmdir()


def name_of(kind: str, key: str) -> str:
    """A file name for the thing of this kind and key, whatever characters the key has."""
    return f"{kind}-{content_hash(key)}"
