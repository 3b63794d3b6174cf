"""Settings of the documentation site: `make docs` builds these pages into build/site.

The pages are read as they lie in the repository, where GitHub shows them too. What differs on the
site is done here: README, CONTRIBUTING and CHANGELOG become pages, and reports open as pages.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
# Files above docs/ that are pages of the site, by the page that stands for them.
ABOVE = {"index": "README.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
# Pages below a page, in the order of the navigation.
BELOW = {
    "results/README": (
        "*/README",
        "*/finetuning",
        "detect",
        "latency",
        "speed",
        "tasks",
        "ten-of-thousand",
        "untrained",
        "strategies",
        "selection",
        "finetune-lead",
        "search-speed",
        "int8",
        "cluster",
    )
}
# Files above docs/ that pages may link to without being pages themselves.
PLAIN = ("LICENSE", "Dockerfile", "Makefile", "pyproject.toml", "constraints.txt")

project = "randprune"
author = "The randprune authors"
project_copyright = "The randprune authors, Apache License 2.0"
release = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]  # type: ignore[index]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_static"]
# Anchors are made as GitHub makes them, so that one link serves both; a wrong one is a warning, and
# `make docs` turns warnings into errors.
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
python_display_short_literal_types = True
add_module_names = False
# A word in single backticks is code, as everywhere in the docstrings.
default_role = "literal"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "randprune"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
highlight_language = "none"
toc_object_entries_show_parents = "hide"


def _relative(page: str, docname: str) -> str:
    return os.path.relpath(page, Path(docname).parent)


def _on_site(docname: str, text: str, folder: Path) -> str:
    """The text of a page that lies in `folder`, with the links that the site needs."""
    pages = {name: page for page, name in ABOVE.items()}

    def link(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target:
            return match[0]
        file = Path(os.path.normpath(folder / target))
        if file.parent == ROOT and file.name in pages:
            return f"[{label}]({_relative(pages[file.name] + '.md', docname)}{anchor})"
        if file.parent == ROOT and file.name in PLAIN and file.exists():
            return f"`{file.name}`"
        if file.parent == ROOT / "examples" and file.exists():
            return f"`examples/{file.name}`"
        if file.suffix == ".html" and file.exists():
            # Not as a download: the report is a page.
            return f'<a href="{_relative(os.path.relpath(file, DOCS), docname)}">{label}</a>'
        if file.is_relative_to(DOCS):
            return f"[{label}]({_relative(os.path.relpath(file, DOCS), docname)}{anchor})"
        return match[0]

    return re.sub(r"\[([^\]]*)\]\(([^()\s#]+)(#[^()\s]*)?\)", link, text)


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Give a page its text: of the file that it stands for, where it stands for one."""
    own = source[0]
    if docname in ABOVE:
        path = ROOT / ABOVE[docname]
        app.env.note_dependency(str(path))
        own = (
            path.read_text(encoding="utf-8")
            + "\n"
            + "".join(re.findall(r"^```\{toctree\}.*?^```\n", own, re.M | re.S))
        )
        source[0] = _on_site(docname, own, ROOT)
    else:
        source[0] = _on_site(docname, own, (DOCS / docname).parent)
    if docname in BELOW:
        lines = ["", "```{toctree}", ":hidden:", ":glob:", "", *BELOW[docname], "```", ""]
        source[0] += "\n".join(lines)


def keep_units(app: Sphinx, doctree: nodes.document) -> None:
    """Keep numbers and their percent signs on one line."""
    for text in list(doctree.findall(nodes.Text)):
        if not isinstance(text.parent, nodes.literal | nodes.literal_block | nodes.raw):
            kept = re.sub(r"(?<=\d) (?=%)", "\u00a0", text)
            if kept != text:
                text.parent.replace(text, nodes.Text(kept))


def show_code(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Show an indented block of a docstring as code: it is an example, never a quotation."""
    shown: list[str] = []
    for line in lines:
        before = [text for text in shown if text]
        if (
            line.startswith("    ")
            and before
            and not shown[-1]
            and not before[-1].startswith(" ")
            and not before[-1].endswith(":")
        ):
            shown += ["::", ""]
        shown.append(line)
    lines[:] = shown


def copy_reports(app: Sphinx, error: Exception | None) -> None:
    """Put the reports of the results beside their pages."""
    if error is None:
        for report in DOCS.glob("results/*/report.html"):
            target = Path(app.outdir) / report.relative_to(DOCS)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(report, target)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", read_page)
    app.connect("doctree-read", keep_units)
    app.connect("autodoc-process-docstring", show_code, priority=100)
    app.connect("build-finished", copy_reports)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
