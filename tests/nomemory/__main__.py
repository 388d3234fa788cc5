"""Let every call of hotloop fail, one after the other.

    python -m nomemory [--only NAME]... [--quick] [--windows 1,5] [--missing]

Exit status 1 where anything crashed, hung, leaked or broke without a MemoryError.
--quick fails each place of the sources once only. --first NUMBER plays one case
of one scenario and prints what happened.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from . import control as controls
from .control import Control, Site

CASES_MAX = 5000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nomemory")
    parser.add_argument("--only", action="append", metavar="SCENARIO")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--windows", default="1,5", help="how many calls fail in a row")
    parser.add_argument(
        "--missing", action="store_true", help="which files are untried"
    )
    parser.add_argument("--first", type=int, help="one case only")
    parser.add_argument("--library", help=argparse.SUPPRESS)
    return parser.parse_args()


def cases(sites: list[Site], quick: bool, tried: set[Site]) -> Iterator[int]:
    """The numbers of the calls that are to fail."""
    for number, site in enumerate(sites[:CASES_MAX], 1):
        if not quick or site not in tried:
            yield number
        tried.add(site)


def show(name: str, first: int, window: int, result: dict[str, Any]) -> None:
    print(f"\nFAILED: --only {name} --first {first} --windows {window}")
    print(f"  site {result.get('site')}: {result['problem']}")
    for text in [*result.get("notes", ()), *result.get("traces", ())]:
        print("  | " + text.replace("\n", "\n  | "))
    sys.stdout.flush()


def run_scenario(
    name: str, control: Control, options: argparse.Namespace, tried: set[Site]
) -> tuple[int, int]:
    """All cases of one scenario: (how many, how many went wrong)."""
    from .play import in_child

    started = time.monotonic()
    plain = in_child(name, control, 0, 1)
    if plain["problem"]:
        show(name, 0, 1, plain)
        return 1, 1
    sites = [(site[0], site[1], site[2]) for site in plain["sites"]]
    done = bad = told = stuck = 0
    windows = [int(text) for text in options.windows.split(",")]
    for window in windows[:1] if options.quick else windows:
        for first in cases(sites, options.quick, tried):
            result = in_child(name, control, first, window)
            done += 1
            told += result.get("told", False)
            stuck += result.get("stuck", False)
            if result["problem"]:
                bad += 1
                result.setdefault("site", sites[first - 1])
                show(name, first, window, result)
    seconds = time.monotonic() - started
    print(
        f"{name:<26} {len(sites):>6} calls {done:>6} cases {told:>6} told"
        f" {stuck:>4} ended {bad:>4} wrong {seconds:>6.1f} s",
        flush=True,
    )
    return done, bad


def show_coverage(tried: set[Site], missing: bool) -> None:
    total = controls.count_sites()
    seen = dict.fromkeys(total, 0)
    for _, path, _ in tried:
        seen[path] = seen.get(path, 0) + 1
    if missing:
        for path in sorted(total):
            if total[path]:
                print(f"{path:<34} {seen[path]:>4} of {total[path]:>4}")
    print(f"places that failed: {len(tried)} of {sum(total.values())} in csrc/")


def main() -> int:
    options = arguments()
    if options.library is None:
        with tempfile.TemporaryDirectory() as folder:
            library = controls.build(folder)
            command = [sys.executable, "-X", "faulthandler", "-m", "nomemory"]
            command += [*sys.argv[1:], f"--library={library}"]
            return subprocess.run(command, check=False).returncode
    control = Control(options.library)
    from .play import in_child, prepare
    from .scenarios import SCENARIOS

    prepare()
    if options.first is not None:
        window = int(options.windows.split(",")[0])
        faulthandler.register(signal.SIGUSR2)
        control.functions.faults_signal(signal.SIGUSR2)
        result = in_child(options.only[0], control, options.first, window)
        print(json.dumps(result, indent=1))
        return 1 if result["problem"] else 0
    tried: set[Site] = set()
    done = bad = 0
    for name in options.only or SCENARIOS:
        cases_done, cases_bad = run_scenario(name, control, options, tried)
        done += cases_done
        bad += cases_bad
    show_coverage(tried, options.missing)
    print(f"nomemory: {done} cases, {bad} wrong")
    return 1 if bad or not done else 0


if __name__ == "__main__":
    sys.exit(main())
