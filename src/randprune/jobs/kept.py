"""What a job keeps on the disk until it ends, so that a resumed one only reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from randprune.artifact import load, save
from randprune.errors import ArtifactError
from randprune.graph.program import in_mode
from randprune.tensor_file import read_tensors, write_tensors


@dataclass(frozen=True, slots=True)
class Kept:
    """Tensors and pruned networks by name in one folder, each written whole or not at all."""

    folder: Path

    def tensors(self, name: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors kept under `name`, made and written first where there are none."""
        path = self.file(name)
        if path.exists():
            try:
                return read_tensors(path)
            except ArtifactError:
                path.unlink(missing_ok=True)  # damaged: make them again
        return write_tensors(path, make())

    def network(self, name: str, dense: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
        """The network kept under `name`, made and written first where there is none.

        `dense` is what it was cut from; the network comes with its training flag.
        """
        path = self.file(name)
        if path.exists():
            try:
                return in_mode(load(path, model=dense), dense.training)
            except ArtifactError:
                path.unlink(missing_ok=True)
        made = make()
        save(made, path)
        return made

    def file(self, name: str) -> Path:
        """Where `name` is kept."""
        return self.folder / f"{name}.safetensors"
