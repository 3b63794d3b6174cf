"""Recipes of benchmarks: what is refused, and the studies that are shipped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_bench
from tiny_bench import ROWS

from randprune.bench import BenchRecipe
from randprune.bench.keys import Row
from randprune.bench.studies import study_file, study_names
from randprune.bench.units import proposals, trainings
from randprune.errors import InvalidInputError


@pytest.mark.parametrize("name", ["random_search", "uniform", "random_channels"])
def test_a_comparison_without_its_controls_is_refused(name: str) -> None:
    rows = {label: section for label, section in ROWS.items() if label != name}
    rows.pop("one_random")
    message = rf"a comparison needs a row of {name}, .*Add an empty table \[methods.{name}\]"
    with pytest.raises(InvalidInputError, match=message):
        tiny_bench.recipe(methods=rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"criteria": ["l3"]}, "No criterion is called 'l3'. Did you mean"),
        ({"criteria": ["l1", "l1"]}, "criteria must name each criterion only once"),
        ({"criteria": []}, "at least one criterion"),
        ({"methods": {**ROWS, "magic": {}}}, "No method is called 'magic'"),
        ({"methods": {**ROWS, "a/b": {"method": "uniform"}}}, "must not be empty or hold '/'"),
        ({"methods": {**ROWS, "uniform": {"options": {"x": 1}}}}, "'uniform' rejects"),
        ({"design": {"reference": "uniform/l2"}}, r"must be one of the rows .*uniform/l1"),
        ({"design": {"epochs": []}}, "at least 1 item"),
        ({"finetune": {"epochs": 3}}, r"finetune.epochs.*It means: not given here: the lengths"),
        ({"finetune": {"seed": 3}}, "finetune.seed"),
        ({"recovery": "bn+bn"}, "chain of different steps"),
        ({"desing": {}}, "Did you mean 'design'"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        tiny_bench.recipe(**changes)


def test_plug_ins_are_imported_when_the_benchmark_starts(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"'plugins'.*'no_such_module' cannot be imported"):
        tiny_bench.recipe(plugins=["no_such_module"]).resolved()
    with pytest.raises(InvalidInputError, match="'no_such_module' cannot be imported"):
        tiny_bench.run(tmp_path / "out", plugins=["no_such_module"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"criteria": ["l3"]}, "No criterion is called 'l3'. Did you mean"),
        ({"methods": {**ROWS, "unifrom": {}}}, "No method is called 'unifrom'. Did you mean"),
        ({"recovery": "magic+bn"}, "No recovery is called 'magic'"),
    ],
)
def test_names_that_a_plug_in_does_not_bring_are_named_when_it_starts(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "brings_nothing.py").write_text("")
    monkeypatch.chdir(tmp_path)
    recipe = tiny_bench.recipe(plugins=["brings_nothing"], **changes)
    with pytest.raises(InvalidInputError, match=message):
        recipe.resolved()
    sys.modules.pop("brings_nothing")


def test_units_are_rows_times_draws_times_lengths_times_trainings() -> None:
    recipe = tiny_bench.recipe(design={"draws": 3, "trainings": 2, "epochs": [4, 0, 1]})
    asked = list(proposals(recipe))
    assert len(asked) == len(set(asked)) == 3 * 5
    assert asked[0].key.row == recipe.reference == Row("random_search", "l1")
    found = list(trainings(recipe, asked[0].key))
    assert [(u.key.epochs, u.key.training) for u in found] == [(1, 0), (4, 0), (1, 1), (4, 1)]


def test_a_recipe_comes_back_from_its_file(tmp_path: Path) -> None:
    recipe = tiny_bench.recipe()
    assert BenchRecipe.load(recipe.save(tmp_path / "bench.toml")) == recipe


@pytest.mark.parametrize("name", study_names())
def test_the_shipped_studies_are_sound(name: str) -> None:
    recipe = BenchRecipe.load(study_file(name))
    assert recipe.study == name
    assert list(proposals(recipe))


def test_a_study_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"called 'smoek'\. Did you mean 'smoke'"):
        study_file("smoek")
