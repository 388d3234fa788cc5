"""Table of the CPU times that a suite is about."""

from __future__ import annotations

from rich.table import Table

from .loops import CEILINGS, SUBJECT
from .model import Results, Row

Times = dict[str, float]


def merit_tables(results: Results, suite: str) -> list[Table]:
    """One table for each kind of CPU time that rows of this suite are about."""
    kinds: dict[str, dict[Row, Times]] = {}
    for row in results.rows(suite):
        times = row_times(results, row)
        if row.merit and times:
            kinds.setdefault(row.merit, {})[row] = times
    return [merit_table(f"{suite}: {kind}", rows) for kind, rows in kinds.items()]


def row_times(results: Results, row: Row) -> Times:
    """Microseconds by loop, of those loops where they are known."""
    known = {}
    for loop in results.loops:
        cell = results.cell(row, loop)
        spent = cell.merit_us() if cell else None
        if spent:
            known[loop] = spent
    return known


def merit_table(title: str, rows: dict[Row, Times]) -> Table:
    """Rows by loops, then how the one that matters compares."""
    loops = list(dict.fromkeys(loop for times in rows.values() for loop in times))
    table = Table(title=f"{title} for one of what is counted, in µs")
    table.add_column("row", no_wrap=True)
    for heading in (*loops, f"{SUBJECT} : ceiling", f"{SUBJECT} : best other"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row, times in rows.items():
        spent = [f"{times[loop]:,.2f}" if loop in times else "-" for loop in loops]
        ceilings = {name: us for name, us in times.items() if name in CEILINGS}
        others = {k: us for k, us in times.items() if k not in {SUBJECT, *ceilings}}
        compared = [against(times, least) for least in (ceilings, others)]
        table.add_row(f"{row.name} ({row.unit.removesuffix('/s')})", *spent, *compared)
    return table


def against(times: Times, rivals: Times) -> str:
    """How many times the CPU of the best rival, and which one that is."""
    if SUBJECT not in times or not rivals:
        return "-"
    best = min(rivals, key=lambda name: rivals[name])
    return f"{times[SUBJECT] / rivals[best]:.2f}x {best}"


def limited_by_client(results: Results) -> list[str]:
    """Say where the client had no time to spare, by suite and row."""
    found: dict[tuple[str, str], list[str]] = {}
    for cell in results.cells:
        if cell.row.merit and cell.best and cell.best.client_limits:
            found.setdefault((cell.row.suite, cell.row.name), []).append(cell.loop)
    return [
        f"- {suite} {row} ({', '.join(loops)}): the client's core was saturated, "
        "so compare the CPU times and not the rates"
        for (suite, row), loops in found.items()
    ]
