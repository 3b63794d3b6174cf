"""The architecture, checked on the source: who may import whom, and what nobody may do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGE = SOURCE / "randprune"

# Each line may import itself and the lines above it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("registry", "provenance", "atomic", "cost"),
    ("space",),
    ("plan",),
    ("graph",),
    ("search", "criteria", "surgery", "recovery"),
    ("evaluate", "latency", "training", "zoo", "supernet"),
    ("store", "artifact", "export"),
    ("recipe", "pipeline"),
    ("bench", "report", "testing"),
    ("cli", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 500


def module_name(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(name: str) -> str:
    """The part of the package that a dotted name lies in, e.g. "graph"; "" for the package."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def is_module(name: str) -> bool:
    """Whether `randprune.NAME` is a module, or the version, which the package itself defines."""
    return unit(name) in {unit(module_name(path)) for path in MODULES} | {"__version__"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a file imports, also inside functions.

    Names imported from a package count as its modules where they are: `from randprune import zoo`
    is an import of `randprune.zoo`.
    """
    package = module_name(path) if path.name == "__init__.py" else module_name(path.with_name("_"))
    package = package.removesuffix("._")
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, *filter(None, [base])])
            yield node.lineno, base
            if base.partition(".")[0] == "randprune":
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(PACKAGE)) for path in paths]


each_module = pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))


def test_every_part_of_the_package_has_a_layer() -> None:
    parts = {unit(module_name(path)) for path in MODULES} - {""}
    assert parts - RANK.keys() == set(), "add the new part to LAYERS"


@each_module
def test_imports_point_upwards_only(path: Path) -> None:
    own = unit(module_name(path))
    if not own:  # the package's own __init__ gathers the public names of all layers
        return
    wrong = [
        f"line {line}: {own} imports {name}"
        for line, name in imported(path)
        if name.startswith("randprune.") and RANK.get(unit(name), -1) > RANK[own]
    ]
    # Nobody imports the gathered names, since that would import every layer.
    wrong += [
        f"line {line}: import {name} from the module that defines it"
        for line, name in imported(path)
        if name.count(".") == 1 and name.startswith("randprune.") and not is_module(name)
    ]
    assert wrong == []


@each_module
def test_search_space_and_cost_know_numpy_only(path: Path) -> None:
    if unit(module_name(path)) not in ("search", "space", "cost", "errors", "registry"):
        return
    roots = {name.partition(".")[0] for _, name in imported(path)}
    allowed = {*sys.stdlib_module_names, "numpy", "scipy", "randprune"}
    assert roots - allowed == set()


@each_module
def test_only_zoo_vision_imports_torchvision_and_timm(path: Path) -> None:
    if path == PACKAGE / "zoo" / "vision.py":
        return
    found = [
        f"line {line}: {name}"
        for line, name in imported(path)
        if name.partition(".")[0] in ("torchvision", "timm")
    ]
    assert found == []


@each_module
def test_no_pickle_and_no_unsafe_load(path: Path) -> None:
    found = []
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        pickling = function.startswith(("pickle.", "cloudpickle.", "dill.", "joblib."))
        if pickling or function in ("eval", "exec", "torch.save"):
            found.append(f"line {node.lineno}: {function}")
        if function == "torch.load" and keywords.get("weights_only") != "True":
            found.append(f"line {node.lineno}: torch.load without weights_only=True")
        if function.endswith((".load", "load")) and keywords.get("allow_pickle") == "True":
            found.append(f"line {node.lineno}: {function} with allow_pickle")
    # The one use of the module's name: catching the error that torch.load raises.
    if path != PACKAGE / "zoo" / "weights.py":
        found += [f"line {n}: {name}" for n, name in imported(path) if name == "pickle"]
    assert found == []


@each_module
def test_modules_stay_readable(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{lines} lines: split the module"
    assert path.stem not in ("utils", "util", "helpers", "misc", "common")


@each_module
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree(path)), "a module starts with a docstring"


def test_importing_the_package_leaves_heavy_libraries_alone() -> None:
    code = (
        "import sys, randprune; "
        "print(*sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'torchvision', 'timm', 'plotly', 'matplotlib', 'sklearn', 'accelerate', 'onnx'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@each_module
def test_the_command_line_imports_the_engine_only_inside_commands(path: Path) -> None:
    if unit(module_name(path)) not in ("cli", "__main__"):
        return
    light = ("randprune.cli", "randprune.errors", "randprune.report.format")
    heavy = [
        name
        for node in tree(path).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
        if not name.startswith(light)
        and name.partition(".")[0] not in {*sys.stdlib_module_names, "typer", "rich"}
    ]
    assert heavy == []
