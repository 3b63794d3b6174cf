"""The architecture, checked on the source: who may import whom, and what nobody may do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGE = SOURCE / "randprune"

# Each line may import itself and the lines above it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("registry", "imports", "provenance", "atomic", "memory", "cost"),
    ("tensor_file",),
    ("space",),
    ("lineage",),
    ("graph",),
    ("strategies", "criteria", "surgery", "widening", "recovery"),
    ("tasks",),
    ("evaluate", "latency", "training", "zoo", "supernet", "export", "quantize"),
    ("store", "artifact"),
    ("executors",),
    ("recipe", "jobs"),
    ("bench", "report", "notebook", "testing", "integrations"),
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


def imports_point_upwards_only(path: Path) -> Iterator[str]:
    own = unit(module_name(path))
    if not own:  # the package's own __init__ gathers the public names of all layers
        return
    for line, name in imported(path):
        if not name.startswith("randprune."):
            continue
        if RANK.get(unit(name), -1) > RANK[own]:
            yield f"line {line}: {own} imports {name}"
        if name.count(".") == 1 and not is_module(name):
            # Nobody imports the gathered names, since that would import every layer.
            yield f"line {line}: import {name} from the module that defines it"


def strategies_and_costs_know_numpy_only(path: Path) -> Iterator[str]:
    if unit(module_name(path)) in ("strategies", "space", "cost", "errors", "registry"):
        allowed = {*sys.stdlib_module_names, "numpy", "scipy", "randprune"}
        if path.name == "optuna_search.py":  # an extra, imported when it is asked for
            allowed.add("optuna")
        for line, name in imported(path):
            if name.partition(".")[0] not in allowed:
                yield f"line {line}: {name}"


def only_zoo_vision_imports_torchvision_and_timm(path: Path) -> Iterator[str]:
    if path != PACKAGE / "zoo" / "vision.py":
        for line, name in imported(path):
            if name.partition(".")[0] in ("torchvision", "timm"):
                yield f"line {line}: {name}"


def nothing_is_unpickled(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        pickling = function.startswith(("pickle.", "cloudpickle.", "dill.", "joblib."))
        # The conformance suites rebuild objects from their repr, which the plug-in's author wrote.
        evaluating = function in ("eval", "exec") and unit(module_name(path)) != "testing"
        if pickling or evaluating or function == "torch.save":
            yield f"line {node.lineno}: {function}"
        if function == "torch.load" and keywords.get("weights_only") != "True":
            yield f"line {node.lineno}: torch.load without weights_only=True"
        if keywords.get("allow_pickle") == "True":
            yield f"line {node.lineno}: {function} with allow_pickle"
    # The one use of the module's name: catching the error that torch.load raises.
    if path != PACKAGE / "zoo" / "weights.py":
        yield from (f"line {n}: {name}" for n, name in imported(path) if name == "pickle")


def modules_stay_readable(path: Path) -> Iterator[str]:
    lines = path.read_text(encoding="utf-8").count("\n")
    if lines > MAX_LINES:
        yield f"{lines} lines: split the module"
    if path.stem in ("utils", "util", "helpers", "misc", "common"):
        yield "name the module by what it holds"
    if not ast.get_docstring(tree(path)):
        yield "a module starts with a docstring"


def commands_import_the_engine_only_when_they_run(path: Path) -> Iterator[str]:
    if unit(module_name(path)) not in ("cli", "__main__"):
        return
    light = ("randprune.cli", "randprune.errors", "randprune.report.format")
    known = {*sys.stdlib_module_names, "typer", "rich"}
    for node in tree(path).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if not name.startswith(light) and name.partition(".")[0] not in known:
                yield f"line {node.lineno}: {name}"


def imported_modules(path: Path) -> set[str]:
    """Modules of the package that a file imports: inside functions and for types alone, too."""
    known = {module_name(file) for file in MODULES}
    found: set[str] = set()
    names = [name for _, name in imported(path)]
    for name in names:
        # `from randprune.store import lock` is an import of the module, not of the package's names.
        only_a_way = any(other.startswith(f"{name}.") and other in known for other in names)
        if name in known and not (only_a_way and not _takes_names(path, name, known)):
            found.add(name)
    return found - {module_name(path)}


def _takes_names(path: Path, package: str, known: set[str]) -> bool:
    """Whether a file takes something out of a package that is no module of it."""
    return any(
        name.startswith(f"{package}.")
        and name not in known
        and name.count(".") == package.count(".") + 1
        for _, name in imported(path)
    )


def circles(edges: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """The largest sets of modules each of which imports all others, over however many steps."""
    reach: dict[str, set[str]] = {}
    for start in edges:
        seen: set[str] = set()
        stack = [start]
        while stack:
            for target in edges.get(stack.pop(), set()) - seen:
                seen.add(target)
                stack.append(target)
        reach[start] = seen
    return {
        frozenset({a, *(b for b in reach[a] if a in reach.get(b, set()))})
        for a in edges
        if a in reach[a]
    }


Rule = Callable[[Path], Iterator[str]]
RULES: tuple[Rule, ...] = (
    imports_point_upwards_only,
    strategies_and_costs_know_numpy_only,
    only_zoo_vision_imports_torchvision_and_timm,
    nothing_is_unpickled,
    modules_stay_readable,
    commands_import_the_engine_only_when_they_run,
)


def test_every_part_of_the_package_has_a_layer() -> None:
    parts = {unit(module_name(path)) for path in MODULES} - {""}
    assert parts - RANK.keys() == set(), "add the new part to LAYERS"


def test_no_module_imports_itself_over_others() -> None:
    edges = {module_name(path): imported_modules(path) for path in MODULES}
    found = circles({name: targets - {"randprune"} for name, targets in edges.items()})
    assert found == set()


def test_a_circle_is_found_whatever_its_length() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"e"}, "f": {"a"}}
    assert circles(edges) == {frozenset("abc"), frozenset("e")}


@pytest.mark.parametrize("rule", RULES)
def test_architecture(rule: Rule) -> None:
    broken = [
        f"{path.relative_to(PACKAGE)}: {problem}" for path in MODULES for problem in rule(path)
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("rule", "where", "source"),
    [
        (imports_point_upwards_only, "strategies/bad.py", "import randprune.zoo.models"),
        (imports_point_upwards_only, "graph/bad.py", "from randprune import trace"),
        (imports_point_upwards_only, "graph/bad.py", "from ..zoo import models"),
        (
            strategies_and_costs_know_numpy_only,
            "strategies/bad.py",
            "def f():\n    import torch",
        ),
        (only_zoo_vision_imports_torchvision_and_timm, "zoo/bad.py", "from timm.layers import x"),
        (nothing_is_unpickled, "cost.py", "torch.load(path)"),
        (nothing_is_unpickled, "cost.py", "torch.load(path, weights_only=False)"),
        (nothing_is_unpickled, "cost.py", "np.load(path, allow_pickle=True)"),
        (nothing_is_unpickled, "cost.py", "import pickle"),
        (modules_stay_readable, "graph/utils.py", '"""Things."""'),
        (modules_stay_readable, "cost.py", "x = 1"),
        (commands_import_the_engine_only_when_they_run, "cli/bad.py", "import torch"),
    ],
)
def test_each_rule_finds_what_it_forbids(
    rule: Rule, where: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "randprune" / where
    file.parent.mkdir(parents=True)
    file.write_text(source)
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    monkeypatch.setitem(globals(), "MODULES", [])
    assert list(rule(file))


def test_importing_the_package_leaves_heavy_libraries_alone() -> None:
    code = (
        "import sys, randprune; "
        "print(*sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'torchvision', 'timm', 'plotly', 'matplotlib', 'sklearn', 'accelerate', 'onnx'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
