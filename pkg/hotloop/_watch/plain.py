"""A page as plain text."""

from __future__ import annotations

from .page import Figures, Page, Table

_WIDEST = 60


def _line(figures: Figures) -> str:
    values = "   ".join(f"{label} {value}" for label, value in figures.values)
    return f"{figures.name:<9}{values}"


def table(content: Table) -> list[str]:
    """The lines of a table; what does not fit into a column loses its beginning."""
    right = [heading.startswith(">") for heading in content.headings]
    lines = [[heading.lstrip(">") for heading in content.headings], *content.rows]
    cells = [
        [cell if len(cell) <= _WIDEST else f"…{cell[1 - _WIDEST :]}" for cell in line]
        for line in lines
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]


def text(page: Page) -> str:
    """The page as lines of text."""
    lines = [page.title, *map(_line, page.figures)]
    if page.blocked:
        lines += ["", *page.blocked]
    for content in page.tables:
        lines += ["", f"{content.title}:"]
        lines += table(content) if content.rows else ["(none)"]
    return "\n".join(lines)
