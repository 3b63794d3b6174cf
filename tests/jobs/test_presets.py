"""Presets: recipes in the package, below what a recipe says itself."""

from __future__ import annotations

import json

import pytest
from pruning_jobs import SETTINGS, digits, job

from randprune.cli.app import main
from randprune.cli.flags import Asked
from randprune.cli.recipes import job_recipe
from randprune.errors import InvalidInputError
from randprune.recipe import PruneRecipe
from randprune.recipe.presets import preset_meaning, preset_names, preset_text, with_preset


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_recipe_that_says_what_it_is(name: str) -> None:
    assert len(preset_meaning(name)) > 10
    alone = PruneRecipe.from_toml(preset_text(name))
    asked = PruneRecipe.parse({"preset": name})
    assert asked == alone.model_copy(update={"preset": name})
    assert PruneRecipe.from_toml(asked.to_toml()) == asked


def test_the_default_preset_is_what_recipes_default_to() -> None:
    assert preset_names()[0] == "default"
    assert PruneRecipe.from_toml(preset_text("default")) == PruneRecipe()
    assert with_preset({})["search"]["strategy"] == PruneRecipe().search.strategy


def test_what_a_recipe_says_itself_wins() -> None:
    recipe = PruneRecipe.from_toml(
        'preset = "paper"\ncriterion = "l2"\n[search]\ncandidates = 7\n[budget]\nratio = 0.3'
    )
    assert (recipe.criterion, recipe.search.strategy) == ("l2", "random")
    assert (recipe.search.candidates, recipe.budget.ratio) == (7, 0.3)
    assert recipe.preset == "paper"
    assert recipe.hash() != PruneRecipe().hash()


def test_the_paper_is_random_widths_and_l1() -> None:
    recipe = PruneRecipe.parse({"preset": "paper"})
    assert (recipe.criterion, recipe.search.strategy) == ("l1", "random")


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        (
            "papre",
            r"no preset 'papre'. Did you mean 'paper'\? "
            r"There are: default, distilled, labels, paper, thorough",
        ),
        (3, "'preset' in the recipe must be a string. Got 3"),
        (["paper"], "'preset' in the recipe must be a string"),
    ],
)
def test_unknown_presets_are_refused(preset: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        PruneRecipe.parse({"preset": preset})


def test_commands_take_one_and_flags_win() -> None:
    given = {
        "model.spec": "randprune:resnet20",
        "data.spec": "digits",
        "preset": "paper",
        "criterion": "l2",
    }
    recipe = job_recipe(PruneRecipe, Asked(given))
    assert (recipe.criterion, recipe.search.strategy) == ("l2", "random")


def test_python_takes_one_and_parameters_win() -> None:
    result = job(None, candidates=2, finetune=None, preset="paper", criterion="l2")
    assert isinstance(result.recipe, PruneRecipe)
    assert (result.recipe.criterion, result.recipe.search.strategy) == ("l2", "random")
    result = job(None, candidates=2, finetune=None, settings=SETTINGS, data=digits())
    assert isinstance(result.recipe, PruneRecipe)
    assert (result.recipe.criterion, result.recipe.search.strategy) == (
        "reconstruction",
        "lagrangian",
    )


def test_they_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    listed = capsys.readouterr().out
    assert listed.splitlines()[0].startswith("default")
    assert preset_meaning("paper") in listed
    assert main(["presets", "paper"]) == 0
    assert capsys.readouterr().out == preset_text("paper")
    assert main(["presets", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == preset_names()
    assert main(["presets", "none"]) == 2
    assert "There is no preset 'none'" in capsys.readouterr().err
