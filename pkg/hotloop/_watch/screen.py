"""A page on a full screen, by rich, and the keys that are pressed meanwhile."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import Any

from .page import Figures, Page, Table

KEYS = "q quit   t c m x n sort by time, calls, mean, max, name   p profile on/off"

# Lines that a page has beside the rows of its three tables.
_FIXED_LINES = 17


def available() -> bool:
    """Whether rich is installed."""
    try:
        import rich.live  # noqa: F401
    except ImportError:
        return False
    return True


def rows_of(height: int, blocked: int) -> int:
    """How many rows each table can have on a screen of this height."""
    return max(2, (height - _FIXED_LINES - blocked) // 3)


# ---- what is drawn ----


def _bar(fraction: float, width: int = 30) -> Any:
    from rich.text import Text

    full = round(min(1.0, max(0.0, fraction)) * width)
    style = "green" if fraction < 0.5 else "yellow" if fraction < 0.85 else "red"
    bar = Text("|" * full, style=style)
    return bar.append("|" * (width - full), style="bright_black")


def _figures(figures: Figures, busy: float) -> Any:
    from rich.text import Text

    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{figures.name:<9}", style="bold cyan")
    if figures.name == "time":
        line.append_text(_bar(busy)).append("  ")
    for label, value in figures.values:
        line.append(f"{label} ", style="bright_black").append(f"{value}   ")
    return line


def _table(content: Table) -> Any:
    import rich.box
    import rich.table
    from rich.text import Text

    made = rich.table.Table(
        title=content.title,
        title_justify="left",
        title_style="bold",
        header_style="reverse",
        box=rich.box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1),
        expand=True,
    )
    last = len(content.headings) - 1
    for place, heading in enumerate(content.headings):
        right = heading.startswith(">")
        made.add_column(
            heading.lstrip(">"),
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if place == last else None,
        )
    for row in content.rows:
        # As Text: what a program named its tasks is no markup.
        made.add_row(*(Text(cell) for cell in row))
    return made


def drawn(page: Page) -> Any:
    """The page as something that rich can print."""
    from rich.console import Group
    from rich.text import Text

    parts = [Text(page.title, style="bold", no_wrap=True, overflow="ellipsis")]
    parts += [_figures(figures, page.busy) for figures in page.figures]
    if page.blocked:
        lines = "\n".join(page.blocked)
        parts.append(Text(lines, style="red", no_wrap=True, overflow="ellipsis"))
    parts.append(Text(KEYS, style="bright_black", no_wrap=True, overflow="ellipsis"))
    return Group(*parts, *(_table(content) for content in page.tables))


# ---- keys ----


class Keys:
    """The keys of a terminal, one by one; none where there is no terminal."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def wait(self, seconds: float) -> str:
        """Return the key that is pressed next, or nothing after so many seconds."""
        if self._fd is None:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([self._fd], [], [], seconds)
        if not ready:
            return ""
        # A terminal that has gone ends the program.
        return os.read(self._fd, 1).decode("ascii", "replace") or "q"


@contextlib.contextmanager
def keys() -> Iterator[Keys]:
    """Read keys as they are pressed, for as long as this lasts."""
    if not sys.stdin.isatty():
        yield Keys(None)
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield Keys(fd)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def full_screen() -> Iterator[tuple[Callable[[Page], None], Callable[[], int]]]:
    """Take over the screen; yield what shows a page, and what tells the height."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:

        def show(page: Page) -> None:
            live.update(drawn(page), refresh=True)

        yield show, lambda: console.size.height
