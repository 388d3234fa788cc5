"""What the pages show is Python, and what they link to is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support import ROOT

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", "benchmarks/*.md")
    for page in Path(ROOT).glob(pattern)
)
BLOCK = re.compile(r"^```(?:python|\{testcode\})\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_parses(page: Path) -> None:
    for block in BLOCK.findall(page.read_text()):
        compile(block, name(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        assert (page.parent / link).exists(), f"{name(page)}: {link}"


def test_there_are_pages() -> None:
    assert len(PAGES) > 20
    assert any(BLOCK.search(page.read_text()) for page in PAGES)
