"""A result as a folder in the layout of the Hugging Face Hub, and that folder pushed there.

folder = write_folder(result, "resnet18-half", license="apache-2.0")
rp.load(folder, model=MyNetwork)             # from model.safetensors, without a network
push_folder(folder, "me/resnet18-half")      # only now something leaves the machine
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from randprune.artifact import HUB_FILE, save
from randprune.atomic import checked_path, write_file
from randprune.errors import InvalidInputError, StorageError
from randprune.jobs import PruneResult
from randprune.jobs.identity import network_name, network_options
from randprune.recipe import shareable_toml

__all__ = ["push_folder", "write_folder"]

CARD, RECIPE = "README.md", "recipe.toml"


def write_folder(
    result: PruneResult, folder: str | os.PathLike[str], *, title: str = "", license: str = ""
) -> Path:
    """Write model.safetensors, README.md (the model card) and recipe.toml; returns the folder.

    Args:
        result: of a job.
        folder: made if it is not there; files of these names are replaced.
        title: of the card; default: the folder's name.
        license: of the weights, as the hub names it, such as "apache-2.0"; yours to know.

    Raises:
        StorageError: the folder cannot be written.
    """
    place = checked_path(folder, "folder")
    name, options = network_name(result.recipe), network_options(result.recipe)
    save(result.model, place / HUB_FILE, model=name, options=options)
    # Without the paths of this machine, which say nothing to others.
    recipe = shareable_toml(result.recipe.document(), "")
    write_file(place / RECIPE, recipe.encode())
    write_file(place / CARD, _card(result, title or place.resolve().name, license, name).encode())
    return place


def _card(result: PruneResult, title: str, license: str, name: str) -> str:
    """The model card: what the hub reads, the numbers, and how to load the network."""
    load = 'rp.load("FOLDER")' if name else 'rp.load("FOLDER", model=MyNetwork)  # the dense one'
    front = ["---", *([f"license: {license}"] if license else []), "library_name: pytorch"]
    lines = [
        *front, "tags:", "- pruning", "- randprune", "---", "", f"# {title}", "",
        f"{name or 'A network'} pruned by randprune to {result.budget.ratio:.1%} of its "
        f"{result.budget.metric}. On the test set, with the dense network and controls beside it:",
        "", "```", result.without_folder().summary(), "```", "",
        "```python", "import randprune as rp", "",
        f"network = {load}", "```", "", f"What was asked is in [{RECIPE}]({RECIPE}).", "",
    ]  # fmt: skip
    return "\n".join(lines)


def push_folder(
    folder: str | os.PathLike[str], repository: str, *, private: bool = True, token: Any = None
) -> str:
    """Upload such a folder by huggingface_hub; returns the address of what came of it.

    Args:
        folder: as `write_folder` made it; its three files are pushed, nothing else.
        repository: such as "me/resnet18-half"; made if it is not there.
        private: whether a new repository is.
        token: for huggingface_hub; default: the one that you have logged in with.

    Raises:
        InvalidInputError: huggingface_hub is not installed.
        StorageError: a file is missing.
    """
    place = checked_path(folder, "folder")
    files = (HUB_FILE, CARD, RECIPE)
    if missing := [name for name in files if not (place / name).is_file()]:
        raise StorageError(f"{place} has no {missing[0]}: write the folder by write_folder first.")
    try:
        hub: Any = import_module("huggingface_hub")
    except ImportError as error:
        raise InvalidInputError(
            "Pushing needs huggingface_hub: pip install huggingface_hub."
        ) from error
    hub.create_repo(repository, private=private, exist_ok=True, token=token)
    return str(
        hub.upload_folder(
            repo_id=repository, folder_path=str(place), allow_patterns=list(files), token=token
        )
    )
