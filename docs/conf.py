"""How Sphinx builds the documentation: ``make docs``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hotloop

project = "hotloop"
author = "hotloop contributors"
copyright = author
release = hotloop.__version__
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["build"]

html_theme = "furo"
html_title = f"hotloop {release}"
html_copy_source = False
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

autodoc_member_order = "groupwise"
# The stub file has the types; a signature with all of them is hard to read.
autodoc_typehints = "none"

doctest_global_setup = "import asyncio, hotloop"

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "https://github.com/hotloop/hotloop/blob/main/"
# Pages that stand elsewhere in the tree: file -> page that includes it.
INCLUDED = {
    "README.md": "index",
    "CHANGELOG.md": "changelog",
    "SECURITY.md": "security",
    "examples/README.md": "examples",
    "benchmarks/README.md": "benchmarks",
}
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?(?=\))")


def resolve_links(text: str, folder: Path) -> str:
    """Point links to files of the tree at their page, or at the source.

    The pages are read on the code host too, where links are relative to the file
    that has them.
    """

    def resolved(found: re.Match[str]) -> str:
        target = (folder / found[1]).resolve()
        if not target.exists() or not target.is_relative_to(ROOT):
            return found[0]
        path = target.relative_to(ROOT).as_posix()
        anchor = found[2] or ""
        if path in INCLUDED:
            return f"/{INCLUDED[path]}.md{anchor}"
        if path.startswith("docs/") and path.endswith(".md"):
            return f"/{path.removeprefix('docs/')}{anchor}"
        return found[0] if path.startswith("docs/") else SOURCE + path

    return LINK.sub(resolved, text)


def on_source_read(app: Any, name: str, content: list[str]) -> None:
    """Links of the page itself."""
    content[0] = resolve_links(content[0], Path(app.srcdir, name).parent)


def on_include_read(app: Any, path: Any, parent: str, content: list[str]) -> None:
    """Links of a file that a page includes are relative to that file."""
    content[0] = resolve_links(content[0], Path(app.srcdir, path).resolve().parent)


def on_docstring(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings are plain text: an asterisk is one, and roles are their text.

    The roles are in docstrings inherited from asyncio.
    """
    plain = (re.sub(r":\w+:`([^`]+)`", r"\1", line) for line in lines)
    lines[:] = [line.replace("*", "\\*") for line in plain]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", on_docstring)
    app.connect("source-read", on_source_read)
    app.connect("include-read", on_include_read)
