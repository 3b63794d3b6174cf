"""Recipes: exact TOML round trips, and one clear message for every mistake."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from randprune import registry as registry_module
from randprune.cost import Budget
from randprune.errors import InvalidInputError, StorageError
from randprune.recipe import DataSection, ModelSection, PruneRecipe, PruneSearchSection, dump_toml
from randprune.training import TrainRecipe

TEXT = """
seed = 3
criterion = "l2"

[model]
spec = "randprune:resnet20"
weights = "w.safetensors"
freeze = ["layer1.*"]
options = {depth = 3}

[data]
spec = "npz:cifar10"
calibration = 500
options = {mean = [0.4, 0.5, 0.6]}

[budget]
ratio = 0.3

[search]
candidates = 50
options = {law = "shifted"}
"""

scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('aé ."\x7f'), inner),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.dictionaries(st.text("abc-é \n"), values, max_size=5))
def test_toml_text_is_read_back_equal(document: dict[str, object]) -> None:
    back = tomllib.loads(dump_toml(document))
    assert back == document
    assert typed(back) == typed(document)  # 1 is not 1.0 or True


def typed(value: object) -> object:
    """The value with the type of every part, whatever the order of keys, which TOML leaves open."""
    if isinstance(value, dict):
        return sorted((key, typed(item)) for key, item in value.items())
    if isinstance(value, list):
        return repr([typed(item) for item in value])
    return repr(value)


def test_toml_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(InvalidInputError, match=r"'x' holds nan, which TOML cannot hold"):
        dump_toml({"a": {"x": float("nan")}})
    with pytest.raises(InvalidInputError, match="'x' holds <object"):
        dump_toml({"x": object()})
    assert dump_toml({"x": None, "y": 1}) == "y = 1\n"


def test_a_recipe_comes_back_equal(tmp_path: Path) -> None:
    recipe = PruneRecipe.from_toml(TEXT)
    assert PruneRecipe.from_toml(recipe.to_toml()) == recipe
    assert PruneRecipe.load(recipe.save(tmp_path / "new" / "recipe.toml")) == recipe


def test_values_and_defaults() -> None:
    recipe = PruneRecipe.from_toml(TEXT)
    assert recipe.seed == 3
    assert recipe.model == ModelSection(
        spec="randprune:resnet20",
        weights="w.safetensors",
        freeze=("layer1.*",),
        options={"depth": 3},
    )
    assert recipe.data is not None
    assert recipe.data.search is None
    assert recipe.search.candidates == 50
    assert recipe.search.options == {"law": "shifted"}
    assert recipe.budget.budget() == Budget("macs", 0.3, 0.005)


def test_an_empty_recipe_is_the_defaults() -> None:
    recipe = PruneRecipe.from_toml("")
    assert recipe == PruneRecipe()
    assert recipe.search == PruneSearchSection()
    assert (recipe.search.candidates, recipe.search.min_keep) == (100, 0.1)
    assert (recipe.criterion, recipe.recovery) == ("reconstruction", "least_squares")
    assert recipe.search.strategy == "lagrangian"
    assert recipe.finalists.recovery == "least_squares+sequential"


def test_integers_are_accepted_as_floats_and_stay_equal() -> None:
    assert PruneRecipe.from_toml("[budget]\nratio = 1") == PruneRecipe.from_toml(
        "[budget]\nratio = 1.0"
    )


def test_the_finetune_section_is_a_training_recipe() -> None:
    recipe = PruneRecipe.from_toml("[finetune]\nepochs = 2\nlr = 0.05\ncontrols = true")
    assert recipe.finetune is not None
    assert recipe.finetune.controls
    assert recipe.finetune.train_recipe(7) == TrainRecipe(epochs=2, lr=0.05, seed=7)
    own_seed = PruneRecipe.from_toml("[finetune]\nseed = 3").finetune
    assert own_seed is not None
    assert own_seed.train_recipe(7) == TrainRecipe(seed=3)
    assert PruneRecipe.from_toml(recipe.to_toml()) == recipe
    assert PruneRecipe.from_toml("").finetune is None


def test_the_hash_follows_what_decides_the_result() -> None:
    recipe = PruneRecipe.from_toml(TEXT)
    elsewhere = PruneRecipe.from_toml(TEXT + '\n[output]\nfolder = "elsewhere"')
    other = PruneRecipe.from_toml(TEXT.replace("seed = 3", "seed = 4"))
    assert recipe.hash() == elsewhere.hash()
    assert recipe.hash() != other.hash()
    code = (
        "import sys; from randprune.recipe import PruneRecipe; "
        "print(PruneRecipe.from_toml(sys.stdin.read()).hash())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=TEXT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == recipe.hash()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('seed = "3"', r"The key 'seed' in r\.toml must be an integer\. Got '3' instead\."),
        ("seed = -1", r"'seed' .* must be greater than or equal to 0\. Got -1"),
        ("seed = true", r"'seed' .* must be an integer\. Got True"),
        ('criterion = "l3"', r"'criterion' .*No criterion is called 'l3'\. Did you mean 'l2'"),
        ('critrion = "l1"', r"Unknown key 'critrion' in r\.toml\. Did you mean 'criterion'\?"),
        (
            "zzz = 1",
            r"Unknown key 'zzz' in r\.toml\. The top level takes: job, seed, plugins, ",
        ),
        ("[serch]\nx = 1", r"Unknown key 'serch' .*Did you mean 'search'\?"),
        ("[search]\nmin_keep = 2", r"'search\.min_keep' .* less than or equal to 1\. Got 2"),
        ("[search]\nmin_keep = nan", r"'search\.min_keep' .* must be a finite number"),
        (
            "[search]\ncandidate = 2",
            r"Unknown key 'search\.candidate' .* 'search\.candidates'\? \[search\] takes: strategy",
        ),
        ('[search]\nstrategy = "randm"', r"'search\.strategy'.*Did you mean 'random'\?"),
        ('[search]\nrank_by = "x"', r"'search\.rank_by' .* must be 'kl', 'accuracy' or 'loss'"),
        ("[budget]\nratio = 0.0", r"'budget\.ratio' .* greater than 0\. Got 0\.0 .* remains"),
        ("budget = 0.5", r"'budget' .*must be a table"),
        ('[model]\nweights = "x"', r"The key 'model\.spec' is missing in r\.toml\. .*torchvision"),
        ('[model]\nspec = "a"\nfreeze = "b"', r"'model\.freeze' .*must be a list\. Got 'b'"),
        ('[model]\nspec = "a"\nfreeze = [1]', r"'model\.freeze\.0' .*must be a string\. Got 1"),
        ('recovery = "magic"', r"'recovery' .*No recovery is called 'magic'"),
        ("[finetune]\nepoch = 3", r"Unknown key 'finetune\.epoch' .*'finetune\.epochs'"),
        ('[finetune]\nlr = "x"', r"'finetune\.lr' .* must be a number\. Got 'x'"),
        (
            "[finetune]\nepochs = 1\nwarmup_epochs = 2.0",
            r"'finetune' .*warmup_epochs \(2\) must not exceed epochs \(1\)",
        ),
        ('job = "bench"', r"'job' .* must be 'prune'\. Got 'bench'"),
        ("seed = ]", r"r\.toml is not valid TOML: .*line 1"),
    ],
)
def test_each_mistake_has_one_message(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        PruneRecipe.from_toml(text, "r.toml")
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"none\.toml cannot be read: No such file"):
        PruneRecipe.load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'criterion = "\xe9"')
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        PruneRecipe.load(tmp_path / "latin.toml")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        PruneRecipe().save(tmp_path / "file" / "recipe.toml")


def test_recipes_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        DataSection(spec="digits").spec = "npz:x"


IMPORTS_NOTHING = """
import sys
from randprune.bench.recipe import BenchRecipe
from randprune.recipe import PruneRecipe, ScratchRecipe

modules, path = set(sys.modules), list(sys.path)
model = {"spec": "user_network:make"}
PruneRecipe.parse({"model": model, "criterion": "outside", "recovery": "outside+bn"})
ScratchRecipe.parse({"model": model, "search": {"strategy": "outside"}})
controls = {"random_search": {}, "uniform": {}, "random_channels": {}}
BenchRecipe.parse({
    "model": model, "plugins": ["user_plugin"], "criteria": ["l1", "of_the_plugin"],
    "methods": {**controls, "of_the_plugin": {}}, "recovery": "of_the_plugin",
})
BenchRecipe.parse({"model": model, "methods": {**controls, "outside": {}}})
new = {name.partition(".")[0] for name in set(sys.modules) - modules}
print(sorted(new - sys.stdlib_module_names), sys.path == path)
"""


def test_validating_a_recipe_imports_nothing_and_leaves_the_path_alone(tmp_path: Path) -> None:
    for name in ("user_network", "user_plugin", "outside"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    package = tmp_path / "outside-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    groups = ("criteria", "recoveries", "strategies", "methods")
    points = (f"[randprune.{group}]\noutside = outside:Thing\n" for group in groups)
    (package / "entry_points.txt").write_text("\n".join(points))
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS_NOTHING],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout.strip() == "[] True", done.stderr


def test_names_of_installed_packages_are_checked_by_their_entry_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = [EntryPoint("outside", "no_such_module:Thing", "randprune.criteria")]
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points)
    assert PruneRecipe.parse({"criterion": "outside"}).criterion == "outside"
    with pytest.raises(InvalidInputError, match=r"called 'outsid'\. Did you mean 'outside'\?"):
        PruneRecipe.parse({"criterion": "outsid"})
