"""Flags of the command line are recipe keys: same names, same defaults, nothing left over."""

from __future__ import annotations

import inspect
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from randprune.bench.recipe import BenchRecipe
from randprune.cli.flags import BENCH, PRUNE, SCRATCH, Flag, recipe_document
from randprune.errors import InvalidInputError
from randprune.recipe import PruneRecipe, ScratchRecipe
from randprune.zoo.sources import SOURCES

FLAGS = [
    *((PruneRecipe, flag) for flag in PRUNE),
    *((ScratchRecipe, flag) for flag in SCRATCH),
    *((BenchRecipe, flag) for flag in BENCH),
]
each_flag = pytest.mark.parametrize(
    ("recipe", "flag"), FLAGS, ids=[f"{recipe.__name__}.{flag.key}" for recipe, flag in FLAGS]
)


def field(recipe: type[BaseModel], key: str) -> FieldInfo:
    """The recipe's field behind a key such as "search.candidates"."""
    *sections, last = key.split(".")
    model = recipe
    for section in sections:
        annotation = model.model_fields[section].annotation
        union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
        parts = typing.get_args(annotation) if union else (annotation,)
        model = next(p for p in parts if isinstance(p, type) and issubclass(p, BaseModel))
    return model.model_fields[last]


@each_flag
def test_each_flag_is_a_key_of_the_recipe(recipe: type[BaseModel], flag: Flag) -> None:
    section, _, option = flag.key.partition(".options.")
    if option:
        assert isinstance(field(recipe, f"{section}.options"), FieldInfo)
        assert any(option in inspect.signature(source).parameters for source in SOURCES.values())
    else:
        field(recipe, flag.key)


@each_flag
def test_the_default_in_the_help_is_the_recipes(recipe: type[BaseModel], flag: Flag) -> None:
    if ".options." in flag.key:  # the data source decides
        assert not flag.default.isdigit()
        return
    default = field(recipe, flag.key).default
    if flag.default == "the recipe's":  # a study that is named decides
        return
    try:
        shown: Any = float(flag.default)
    except ValueError:
        shown = flag.default
    if default in (None, "", ()) or not isinstance(default, int | float | str):
        assert not isinstance(shown, float)
    elif isinstance(default, bool) or flag.key == "finetune.epochs":
        said = (
            "as module",
            "no sandwich",
            "no random control",
            "no race",
            "pretrained",
            f"0, or {default} if another option of this group is given",
        )
        assert flag.default in said
    else:
        assert shown == default


@pytest.mark.parametrize("flags", [PRUNE, SCRATCH, BENCH], ids=["prune", "scratch", "bench"])
def test_options_are_distinct(flags: tuple[Flag, ...]) -> None:
    names = [name for flag in flags for name in flag.names]
    assert len(set(names)) == len(names)


def test_flags_override_the_file_and_settings_override_flags(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('seed = 3\ncriterion = "l2"\n[search]\ncandidates = 7\nmin_keep = 0.3\n')
    document = recipe_document(
        file,
        {"search.candidates": 9, "model.spec": "randprune:resnet20"},
        ["seed=5", "recovery=bn", "finetune.lr=0.5", "data.options.mean=[0.1, 0.2]"],
    )
    assert document == {
        "seed": 5,
        "criterion": "l2",
        "recovery": "bn",
        "search": {"candidates": 9, "min_keep": 0.3},
        "model": {"spec": "randprune:resnet20"},
        "finetune": {"lr": 0.5},
        "data": {"options": {"mean": [0.1, 0.2]}},
    }


@pytest.mark.parametrize("setting", ["lr", "=3", ".lr=3", "finetune.=3"])
def test_malformed_settings_are_refused(setting: str) -> None:
    with pytest.raises(InvalidInputError, match="The option --set takes a recipe key and a value"):
        recipe_document(None, {}, [setting])


def test_unreadable_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read: No such file"):
        recipe_document(tmp_path / "none.toml", {})
    file = tmp_path / "bad.toml"
    file.write_text("seed = = 3")
    with pytest.raises(InvalidInputError, match="is not valid TOML"):
        recipe_document(file, {})
    file.write_text("search = 3")
    with pytest.raises(InvalidInputError, match="'search' holds 3, not a table"):
        recipe_document(file, {"search.candidates": 9})
