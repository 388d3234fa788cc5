"""Table and plot of a saved run: ``python -m benchmarks.report FILE``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .loops import BASELINE
from .model import Results

NEEDS = "python -m pip install -r benchmarks/requirements.txt"


def print_results(results: Results, baseline: str = BASELINE) -> None:
    """Print one table per suite."""
    try:
        from .table import print_tables
    except ImportError as exc:
        print(f"no table, {exc}: {NEEDS}", file=sys.stderr)
        return
    print_tables(results, baseline)


def plot_results(results: Results, path: Path, baseline: str = BASELINE) -> None:
    """Draw one panel per suite into an image file."""
    try:
        from .plot import draw
    except ImportError as exc:
        print(f"no plot, {exc}: {NEEDS}", file=sys.stderr)
        return
    draw(results, path, baseline)


def main(argv: list[str] | None = None) -> int:
    """Print, and with --plot draw, a saved run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__
    )
    parser.add_argument("file", type=Path, help="JSON written by --json")
    parser.add_argument("--plot", type=Path, metavar="IMAGE", help="draw into IMAGE")
    parser.add_argument(
        "--baseline", default=BASELINE, help="loop of the ratios (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    results = Results.load(args.file)
    print_results(results, args.baseline)
    if args.plot:
        plot_results(results, args.plot, args.baseline)
    return 0


if __name__ == "__main__":
    sys.exit(main())
