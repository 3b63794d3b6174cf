"""A result as a folder of the hub's layout: read back to the last bit, pushed only when asked."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import randprune as rp
from randprune.errors import InvalidInputError, StorageError
from randprune.integrations.hub import push_folder, write_folder
from randprune.zoo.models import build_model

SETTINGS: dict[str, Any] = {
    "output": {"latency_seconds": 0.0},
    "finalists": {"count": 1, "recovery": "bn"},
}
NAME = "randprune:digits_cnn"


def pruned(model: Any, **more: Any) -> rp.PruneResult:
    return rp.prune(
        model, "digits", 0.5, candidates=2, recovery="bn", settings=SETTINGS, **more
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> rp.PruneResult:
    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(build_model(NAME).state_dict(), weights)
    return pruned(NAME, weights=weights, out=weights.parent / "out")


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_folder_is_read_back_to_the_last_bit(result: rp.PruneResult, tmp_path: Path) -> None:
    folder = write_folder(result, tmp_path / "half", license="mit")
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "model.safetensors", "recipe.toml",
    ]  # fmt: skip
    assert same(rp.load(folder), result.model)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert f"{100 * result.accuracy():.2f} %" in card
    assert f"# half\n\n{NAME} pruned by randprune to 50.0%" in card
    everything = card + (folder / "recipe.toml").read_text()
    assert str(tmp_path.parent) not in everything  # no paths of this machine
    assert rp.PruneRecipe.load(folder / "recipe.toml").budget.ratio == 0.5


def test_a_network_of_ones_own_names_no_code(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = pruned(build_model(NAME))
    folder = write_folder(found, tmp_path)
    assert "model=MyNetwork" in (folder / "README.md").read_text()
    assert same(rp.load(folder, model=lambda: build_model(NAME)), found.model)
    with pytest.raises(rp.ArtifactError):
        rp.load(folder)


def test_pushing_sends_the_three_files(
    result: rp.PruneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []

    def create_repo(name: str, **more: Any) -> None:
        told.append({"name": name, **more})

    def upload_folder(**given: Any) -> str:
        told.append(given)
        return "address"

    hub = SimpleNamespace(create_repo=create_repo, upload_folder=upload_folder)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(StorageError, match=r"has no model.safetensors: write the folder"):
        push_folder(tmp_path, "me/half")
    assert told == []
    write_folder(result, tmp_path)
    assert push_folder(tmp_path, "me/half") == "address"
    assert told[0] == {"name": "me/half", "private": True, "exist_ok": True, "token": None}
    assert told[1]["repo_id"] == "me/half"
    assert told[1]["allow_patterns"] == ["model.safetensors", "README.md", "recipe.toml"]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InvalidInputError, match="pip install huggingface_hub"):
        push_folder(tmp_path, "me/half")
