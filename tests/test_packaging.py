"""What users get beside the code: pinned versions, documents that say what is true, commands."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel

from randprune.bench.recipe import BenchRecipe
from randprune.bench.sections import MethodSection
from randprune.cli.app import app
from randprune.recipe import PruneRecipe, ScratchRecipe

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS]
)


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


# ---------------------------------------------------------------------------- set-up


def test_each_dependency_is_pinned_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in pins
        if str(pin.specifier).startswith("==")
    }
    assert len(versions) == len(pins)
    extras = project()["optional-dependencies"].values()
    for text in [*project()["dependencies"], *(line for extra in extras for line in extra)]:
        wanted = Requirement(text)
        if wanted.name != "randprune":
            assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), text


def test_no_file_of_the_setup_names_a_registry() -> None:
    for name in ("constraints.txt", "pyproject.toml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text()
        if name == "pyproject.toml":  # what the package's page links to is no source of packages
            text = re.sub(r"^\[project\.urls\]\n(\w+ = .*\n)+", "", text, flags=re.M)
        assert not re.search(r"https?://|--index|--find-links", text), name


def test_the_version_is_the_same_everywhere() -> None:
    import randprune

    assert randprune.__version__ == project()["version"]
    assert f"## {project()['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_each_file_beside_the_code_is_installed_with_it() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of the repository")
    listed = ["git", "ls-files", "src/randprune"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    files = {ROOT / line for line in done.stdout.splitlines() if not line.endswith(".py")}
    assert ROOT / "src" / "randprune" / "report" / "assets" / "page.css" in files
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    installed: set[Path] = set()
    for package, globs in patterns["package-data"].items():
        folder = ROOT.joinpath("src", *package.split("."))
        assert (folder / "__init__.py").exists(), package
        installed.update(path for glob in globs for path in folder.glob(glob))
    assert {str(path.relative_to(ROOT)) for path in files - installed} == set()


def test_the_source_distribution_holds_every_file() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of the repository")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    words = [line.split() for line in (ROOT / "MANIFEST.in").read_text().splitlines()]
    included = {name for keyword, *names in words if keyword == "include" for name in names}
    # What setuptools takes by itself, and folders that the manifest grafts.
    included |= {"README.md", "pyproject.toml", "MANIFEST.in"}
    folders = ["src", *(names[0] for keyword, *names in words if keyword == "graft")]
    files = done.stdout.splitlines()
    assert [f for f in files if f not in included and f.split("/")[0] not in folders] == []


def test_the_license_is_complete() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize(
    "target", ["demo", "bench-smoke", "test", "check", "docs", "setup", "coverage"]
)
def test_make_knows_its_targets(target: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout or target == "setup"


def test_make_says_what_is_missing_where_python_is_too_old(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={old}", "test"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "randprune needs Python 3.11 or newer with venv" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_what_contributors_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert {"make check", "make test"} <= set(script.read_text().splitlines())


# ---------------------------------------------------------------------------- documents


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = document.parent / path if path else document
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, target


def test_the_readme_says_what_each_extra_brings() -> None:
    text = (ROOT / "README.md").read_text()
    shown = set(re.findall(r"^\| `(\w+)` \| ", text, re.M))
    # The site's own packages are for those who work on it: `dev` holds them.
    assert shown == set(project()["optional-dependencies"]) - {"docs"}


def test_the_figure_of_the_readme_shows_the_committed_tables() -> None:
    script = ROOT / "docs" / "figures" / "make.py"
    figure: Any = runpy.run_path(str(script))["result_svg"]()
    assert (script.parent / "result.svg").read_text(encoding="utf-8") == figure
    assert (script.parent / "report.png").stat().st_size < 300_000


def test_each_public_name_is_in_the_reference() -> None:
    import randprune

    listed = re.findall(
        r"^\.\. auto\w+:: (\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE
    )
    assert set(randprune.__all__) - {"__version__"} <= set(listed)


def documented_commands() -> list[tuple[str, list[str]]]:
    """Every `randprune ...` line in a code block, with the place where it stands."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"```(?:\w*)\n(.*?)```", document.read_text(), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True) if line.startswith("randprune ") else []
                if words:
                    found.append((f"{document.name}: {line.strip()}", words[1:]))
    return found


def test_documented_commands_have_the_options_that_are_shown() -> None:
    import typer.main

    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    shown = documented_commands()
    assert {"demo", "inspect", "prune"} <= {words[0] for _, words in shown}
    for place, words in shown:
        if words[0].startswith("-"):
            continue
        assert words[0] in commands, place
        known = {name for p in commands[words[0]].params for name in [*p.opts, *p.secondary_opts]}
        options = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
        assert options <= known, place


def test_each_command_is_documented() -> None:
    names = {
        info.name or getattr(info.callback, "__name__", "") for info in app.registered_commands
    }
    text = (ROOT / "docs" / "cli.md").read_text()
    assert {name for name in names if f"`randprune {name}" not in text} == set()


def test_python_examples_run(tmp_path: Path) -> None:
    """All Python blocks without data of the user's, document by document, in one process."""
    script = tmp_path / "examples.py"
    parts = ["import warnings", "warnings.simplefilter('error')"]
    for document in DOCUMENTS:
        blocks = re.findall(r"```python\n(.*?)```", document.read_text(), re.S)
        runnable = [block for block in blocks if "rp.prune(" not in block]
        if runnable:
            parts += [f"exec(compile({block!r}, {document.name!r}, 'exec'))" for block in runnable]
    script.write_text("\n".join(parts))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr


def sections_of(model: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    found: list[tuple[str, type[BaseModel]]] = [("", model)]
    for name, info in model.model_fields.items():
        union = typing.get_origin(info.annotation) in (types.UnionType, typing.Union)
        parts = typing.get_args(info.annotation) if union else (info.annotation,)
        found += [(name, p) for p in parts if isinstance(p, type) and issubclass(p, BaseModel)]
    return found


def value_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, dict) and value:
        return ""
    if isinstance(value, tuple):
        value = list(value)
    return f"`{value!r}`".replace("'", '"')


def recipe_rows(recipe: type[BaseModel], elsewhere: Collection[str] = ()) -> list[str]:
    """The table of all recipe keys, as the documents have it; what a key means may be reworded."""
    lines: list[str] = []
    sections = sections_of(recipe)
    names = {name for name, _ in sections}
    for section, model in sections:
        if section in elsewhere:
            continue
        lines.append(f"### [{section}]" if section else "### Top level")
        for key, info in model.model_fields.items():
            if section or key not in names:
                default = "required" if info.is_required() else value_text(info.default)
                lines.append(f"| `{key}` | {default} |")
    return lines


def test_the_reference_of_recipe_keys_is_complete() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text()
    reference = text.partition("## All keys")[2]
    shown = re.findall(r"^(###.*|\| `\w+` \| [^|]*\|)", reference, re.M)
    assert shown == recipe_rows(PruneRecipe)


def test_the_reference_of_the_keys_of_benchmarks_is_complete() -> None:
    text = (ROOT / "docs" / "benchmark.md").read_text()
    reference = text.partition("## All keys of a benchmark")[2]
    shown = re.findall(r"^(###.*|\| `\w+` \| [^|]*\|)", reference, re.M)
    trained = ("finetune", "pretrain", "widen", "supernet", "training")
    shared = ("model", "data", "budget", *trained)
    methods = recipe_rows(MethodSection)[1:]
    assert shown == [*recipe_rows(BenchRecipe, shared), "### [methods.NAME]", *methods]


def test_the_reference_of_the_keys_from_scratch_is_complete() -> None:
    text = (ROOT / "docs" / "from-scratch.md").read_text()
    reference = text.partition("## All keys from scratch")[2]
    shown = re.findall(r"^(###.*|\| `\w+` \| [^|]*\|)", reference, re.M)
    assert shown == recipe_rows(ScratchRecipe, ("model", "data", "budget", "output"))
