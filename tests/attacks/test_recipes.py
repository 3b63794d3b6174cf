"""Recipe files from strangers: no code runs, nothing is written elsewhere, unless asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

CODE = """
from pathlib import Path
Path("ran").write_text("code of a stranger")
def net(**options):
    from randprune.zoo.models import build_model
    return build_model("randprune:digits_cnn")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def recipe(folder: Path, text: str) -> str:
    (folder / "recipe.toml").write_text(text)
    return "recipe.toml"


PRUNE = '[model]\nspec = "{spec}"\n[data]\nspec = "digits"\n{rest}'


@pytest.mark.parametrize("command", ["prune", "scratch", "bench"])
@pytest.mark.parametrize("kind", ["model", "plugins"])
def test_code_that_a_file_names_needs_a_flag(
    run: Any, folder: Path, command: str, kind: str
) -> None:
    module = f"stranger_{command}_{kind}"
    (folder / f"{module}.py").write_text(CODE)
    text = PRUNE.format(spec=f"{module}:net", rest="")
    if kind == "plugins":
        text = f'plugins = ["{module}"]\n' + PRUNE.format(spec="randprune:digits_cnn", rest="")
    file = recipe(folder, text)
    asked = (command, file) if command == "bench" else (command, "--recipe", file)
    code, out, err = run(*asked, "--dry-run", "-q")
    assert (code, out) == (2, "")
    assert "that is code, which runs with your rights" in err
    assert "--trust-plugins" in err
    assert not (folder / "ran").exists()


def test_with_the_flag_or_a_name_of_ones_own_it_runs(run: Any, folder: Path) -> None:
    (folder / "stranger_trusted.py").write_text(CODE)
    file = recipe(folder, PRUNE.format(spec="stranger_trusted:net", rest=""))
    code, _, err = run("prune", "--recipe", file, "--trust-plugins", "--dry-run")
    assert (code, err) == (0, "")
    assert (folder / "ran").exists()
    code, _, err = run("prune", "randprune:digits_cnn", "--recipe", file, "--dry-run")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("out", ["../elsewhere", "/tmp/elsewhere", "~/elsewhere", "a/../../b"])
@pytest.mark.parametrize("command", ["prune", "bench"])
def test_results_stay_in_the_working_directory_unless_asked_for(
    run: Any, folder: Path, out: str, command: str
) -> None:
    text = PRUNE.format(spec="randprune:digits_cnn", rest=f'[output]\nfolder = "{out}"\n')
    file = recipe(folder, text)
    asked = (command, file) if command == "bench" else (command, "--recipe", file)
    code, _, err = run(*asked, "--trust-plugins", "-q")
    assert code == 2
    assert "outside of the working directory. Say where its results go: --out FOLDER." in err
    assert sorted(path.name for path in folder.parent.iterdir()) == ["work"]


def test_a_folder_below_or_of_ones_own_is_fine(run: Any, folder: Path, tmp_path: Path) -> None:
    text = PRUNE.format(spec="randprune:digits_cnn", rest='[output]\nfolder = "runs/a"\n')
    assert run("prune", "--recipe", recipe(folder, text), "--dry-run")[0] == 0
    text = PRUNE.format(spec="randprune:digits_cnn", rest='[output]\nfolder = "../b"\n')
    file = recipe(folder, text)
    asked = ("prune", "--recipe", file, "-o", str(tmp_path / "mine"), "--dry-run")
    assert run(*asked)[0] == 0
