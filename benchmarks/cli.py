"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from .cores import choose_cores
from .loops import CEILINGS, DEFAULT_LOOPS
from .meta import describe
from .model import Results, Row
from .progress import Progress
from .report import plot_results, print_results
from .runner import Plan, probe_loops
from .suites import SUITES
from .suites.base import Settings, Suite


def names(text: str) -> list[str]:
    """Split a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = result.add_argument
    add(
        "--loops",
        type=names,
        default=list(DEFAULT_LOOPS),
        help=f"comma-separated loops (default: {','.join(DEFAULT_LOOPS)})",
    )
    add(
        "--suite",
        type=names,
        action="extend",
        help=f"comma-separated suites (default: tasks) of: {', '.join(SUITES)}",
    )
    add(
        "--rows",
        type=names,
        action="extend",
        metavar="PATTERN",
        help="only rows that match one of these (* and ?), of all there are",
    )
    add("--repeat", type=int, default=3, metavar="N", help="repeats (default: 3)")
    add("--quick", action="store_true", help="short measurements, to try things")
    add("--no-ceiling", action="store_true", help="leave out the ceilings")
    add("--json", type=Path, metavar="FILE", help="write the results to FILE")
    add("--plot", type=Path, metavar="FILE", help="draw the results into FILE")
    add("--list", action="store_true", help="list the rows and stop")
    return result


def chosen_rows(suite: Suite, patterns: list[str] | None) -> list[Row]:
    """Return the default rows, or all rows that match a pattern."""
    if patterns is None:
        return suite.default_rows()
    return [
        row for row in suite.rows() if any(fnmatchcase(row.name, p) for p in patterns)
    ]


def chosen_suites(wanted: list[str] | None) -> list[Suite]:
    """Return the suites of these names; leave with a message at a wrong one."""
    for name in wanted or []:
        if name not in SUITES:
            sys.exit(f"no suite {name!r}; there are: {', '.join(SUITES)}")
    return [SUITES[name] for name in dict.fromkeys(wanted or ["tasks"])]


def chosen_loops(suite: Suite, wanted: list[str], ceiling: bool) -> list[str]:
    """Return the loops of a suite, its own ones last."""
    extra = suite.extra_loops
    named = [name for name in wanted if name not in CEILINGS or name in extra]
    return list(dict.fromkeys([*named, *(extra if ceiling else ())]))


def list_rows(suites: list[Suite]) -> None:
    """Print the names of all rows; a star marks those measured by default."""
    for suite in suites:
        default = suite.default_rows()
        for row in suite.rows():
            print(f"{'*' if row in default else ' '} {suite.name:<10} {row.name}")


def main(argv: list[str] | None = None) -> int:
    """Measure, then print, save and draw what was asked for."""
    args = parser().parse_args(argv)
    suites = chosen_suites(args.suite)
    if args.list:
        list_rows(suites)
        return 0
    if not any(chosen_rows(suite, args.rows) for suite in suites):
        sys.exit("no row matches; --list shows them all")
    cores = choose_cores()
    print(f"{cores.note}; {args.repeat} repeats, best of them", file=sys.stderr)
    loops = {
        suite.name: chosen_loops(suite, args.loops, not args.no_ceiling)
        for suite in suites
    }
    named = dict.fromkeys(name for names in loops.values() for name in names)
    versions, missing = probe_loops([n for n in named if n not in CEILINGS])
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    plans = []
    for suite in suites:
        rows = chosen_rows(suite, args.rows)
        plans.append(Plan(suite, rows, loops[suite.name], missing))
    results = Results(describe(cores, versions, args.repeat), [])
    progress = Progress(args.repeat * sum(plan.size for plan in plans))
    try:
        for plan in plans:
            results.cells.extend(plan.cells)
            plan.run(Settings(cores, args.quick), args.repeat, progress)
    except KeyboardInterrupt:
        print("\ninterrupted; what was measured follows", file=sys.stderr)
    if args.json:
        results.save(args.json)
    print_results(results)
    if args.plot:
        plot_results(results, args.plot)
    return 0
