"""Tables of a run on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .merits import limited_by_client, merit_tables
from .model import Cell, Results, Row
from .ratios import geometric_mean, ratio
from .units import show

WIDTH_OUTSIDE_TERMINAL = 180
DISTURBED_NOTE = (
    "~ for more than 5% of the time another program had the core of the server "
    "or the client: measure again on a quiet machine"
)


def print_tables(results: Results, baseline: str) -> None:
    """Print every suite, then why figures are missing."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OUTSIDE_TERMINAL)
    meta = results.meta
    console.print(
        f"{meta['implementation']} {meta['python']}, {meta['system']}, "
        f"{meta['processor']}; {meta['cores']}; best of {meta['repeats']}",
        highlight=False,
    )
    for suite in results.suites:
        console.print(value_table(results, suite, baseline))
        for merits in merit_tables(results, suite):
            console.print(merits)
        details = detail_table(results, suite)
        if details.row_count:
            console.print(details)
    if any(c.best and c.best.disturbed for c in results.cells):
        console.print(DISTURBED_NOTE, highlight=False)
    for line in (*limited_by_client(results), *reasons(results)):
        console.print(line, highlight=False, markup=False)


def suite_loops(results: Results, suite: str) -> list[str]:
    """The loops that have a cell in this suite."""
    return [
        loop
        for loop in results.loops
        if any(c.loop == loop and c.row.suite == suite for c in results.cells)
    ]


def value_table(results: Results, suite: str, baseline: str) -> Table:
    """Rows by loops: the best figure, and times better than the baseline."""
    loops = suite_loops(results, suite)
    table = Table(title=f"{suite} (in brackets: times better than {baseline})")
    table.add_column("row", no_wrap=True)
    for loop in loops:
        table.add_column(loop, justify="right", no_wrap=True)
    for row in results.rows(suite):
        texts = [value_text(results, row, loop, baseline) for loop in loops]
        table.add_row(row_label(results, row), *texts)
    means = [geometric_mean(results, suite, loop, baseline) for loop in loops]
    table.add_section()
    table.add_row(
        "geometric mean", *[f"{m:.2f}x" if m is not None else "-" for m in means]
    )
    return table


def row_label(results: Results, row: Row) -> str:
    """Name of a row, with how many objects the figure is the mean of."""
    best = (cell.best for cell in results.cells if cell.row == row)
    counts = {int(b.extra["count"]) for b in best if b and "count" in b.extra}
    return " ".join([row.name, *(f"(of {count:,})" for count in sorted(counts))])


def value_text(results: Results, row: Row, loop: str, baseline: str) -> str:
    """Write one cell of the table."""
    cell = results.cell(row, loop)
    if cell is None or cell.best is None:
        return "-"
    text = "~" * cell.best.disturbed + "!" * (cell.error is not None)
    text += show(cell.best.value, row.unit)
    times = ratio(results, row, loop, baseline)
    if loop != baseline and times is not None:
        text += f" ({times:.2f}x)"
    return text


def detail_table(results: Results, suite: str) -> Table:
    """Latency and CPU time per request, one line per cell."""
    table = Table(title=f"{suite}: latency, and server CPU per request, in µs")
    for heading in ("row", "loop"):
        table.add_column(heading, no_wrap=True)
    for heading in DETAILS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in results.rows(suite):
        for loop in suite_loops(results, suite):
            cell = results.cell(row, loop)
            if cell is not None and cell.best and "server_busy" in cell.best.extra:
                table.add_row(row.name, loop, *detail_texts(cell))
        table.add_section()
    return table


DETAILS = ("p50", "p99", "user CPU", "kernel CPU", "server busy", "client busy")


def detail_texts(cell: Cell) -> list[str]:
    """Write the figures of one line of the detail table."""
    assert cell.best is not None
    best = cell.best.extra
    latencies = (best.get(name) for name in ("p50_us", "p99_us"))
    texts = ["" if value is None else f"{value:,.0f}" for value in latencies]
    texts.extend(f"{part:.2f}" if part else "" for part in cell.cpu_us() or (0, 0))
    for name in ("server_busy", "client_busy"):
        texts.append(f"{best[name]:.0%}" if name in best else "")
    return texts


def reasons(results: Results) -> list[str]:
    """Say why figures are missing, each reason once per loop and suite."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for cell in results.cells:
        if cell.error:
            key = (cell.row.suite, cell.loop, cell.error)
            found.setdefault(key, []).append(cell.row.name)
    lines = []
    for (suite, loop, error), rows in found.items():
        where = "all rows" if len(rows) == len(results.rows(suite)) else ", ".join(rows)
        lines.append(f"- {loop}, {suite} ({where}): {error}")
    return lines
