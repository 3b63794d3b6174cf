"""Tensors that a job keeps: a changed bit is noticed, and what was kept is made again."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

import randprune as rp
from randprune.jobs.work_folder import WorkFolder
from randprune.tensor_file import read_tensors, write_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.tensor(3), "c": torch.zeros(0, 2)}


def test_tensors_come_back(tmp_path: Path) -> None:
    made = write_tensors(tmp_path / "x.safetensors", TENSORS)
    back = read_tensors(tmp_path / "x.safetensors")
    assert back.keys() == made.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(tensor, back[name])
        assert torch.equal(tensor, made[name])
        assert tensor.dtype == back[name].dtype


@pytest.mark.parametrize("position", [-1, -20, 9, 40])
def test_a_changed_bit_is_noticed(position: int, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(rp.ArtifactError, match=r"checksum|cannot be read"):
        read_tensors(path)


def test_files_without_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(rp.ArtifactError, match="cannot be read"):
        read_tensors(path)
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(rp.ArtifactError, match="checksum"):
        read_tensors(path)


def test_kept_tensors_that_were_damaged_are_made_again(tmp_path: Path) -> None:
    """One flipped bit used to be taken for the kept values."""
    kept, calls = WorkFolder(tmp_path), []

    def make() -> dict[str, torch.Tensor]:
        calls.append(1)
        return TENSORS

    kept.tensors("x", make)
    kept.tensors("x", make)
    assert len(calls) == 1
    content = bytearray(kept.file("x").read_bytes())
    content[-1] ^= 1
    kept.file("x").write_bytes(content)
    assert torch.equal(kept.tensors("x", make)["a"], TENSORS["a"])
    assert len(calls) == 2
