"""What is public: the modules that define `__all__` are those that the documents list and use."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def with_all() -> set[str]:
    """The modules that define `__all__`."""
    found = set()
    for path in (SOURCE / "randprune").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
                name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
                found.add(name.removesuffix(".__init__"))
    return found


def examples() -> Iterator[tuple[str, ast.ImportFrom | ast.Import]]:
    """Every import in a Python block of the documents, with the place where it stands."""
    for document in DOCUMENTS:
        for block in re.findall(r"```python\n(.*?)```", document.read_text(), re.S):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom | ast.Import):
                    yield f"{document.name}: {ast.unparse(node)}", node


def test_the_list_in_the_documents_is_complete() -> None:
    text = (ROOT / "docs" / "python-api.md").read_text()
    section = text.partition("## Public modules\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(randprune[\w.]*)` \|", section, re.M)
    assert listed == sorted(listed)
    assert set(listed) == with_all()


@pytest.mark.parametrize("module", sorted(with_all()))
def test_every_public_name_exists(module: str) -> None:
    loaded = importlib.import_module(module)
    assert len(set(loaded.__all__)) == len(loaded.__all__)
    for name in loaded.__all__:
        assert hasattr(loaded, name), name


def test_examples_import_public_names_only() -> None:
    public, seen = with_all(), 0
    for where, node in examples():
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("randprune")]
            assert set(names) <= public, where
            continue
        if not (node.module or "").startswith("randprune"):
            continue
        seen += 1
        assert node.module in public, where
        missing = {alias.name for alias in node.names} - set(
            importlib.import_module(str(node.module)).__all__
        )
        assert not missing, where
    assert seen > 15
