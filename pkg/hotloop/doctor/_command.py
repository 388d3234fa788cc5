"""``python -m hotloop doctor``: run a program and report its mistakes."""

from __future__ import annotations

import argparse
import os
import sys

from .. import _program
from ._doctor import Doctor
from ._findings import KINDS

_USAGE = """\
python -m hotloop doctor [OPTION ...] [--streams]
                         (-c COMMAND | -m MODULE | FILE | -) [ARGUMENT ...]"""
_DESCRIPTION = """\
Run a Python program on hotloop's event loop, and report the mistakes that are seen
while it runs: on standard error, at its end. The program itself is run as "python -m
hotloop" runs it. A script by the name of doctor is started as ./doctor.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hotloop doctor",
        usage=_USAGE,
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--slow",
        type=float,
        default=0.1,
        metavar="SECONDS",
        help="a callback may keep the loop so long (0.1)",
    )
    add(
        "--await-limit",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="an await of the network without a timeout may last so long (10)",
    )
    add(
        "--task-limit",
        type=int,
        default=1000,
        metavar="COUNT",
        help="so many unfinished tasks of one place are never too many (1000)",
    )
    add(
        "--ignore",
        action="append",
        default=[],
        metavar="KIND",
        choices=sorted(KINDS),
        help=f"leave out a kind of finding: {', '.join(sorted(KINDS))}",
    )
    add("--libraries", action="store_true", help="findings in installed packages, too")
    add("--json", metavar="FILE", help="write the report as JSON, too")
    add("--html", metavar="FILE", help="write it as a page with a timeline, too")
    add(
        "--check",
        action="store_true",
        help="exit with status 1 if there are errors or warnings",
    )
    return parser


def _divide(words: list[str]) -> tuple[list[str], list[str]]:
    """Divide the command line into the doctor's part and the program's."""
    values = ("--slow", "--await-limit", "--task-limit", "--ignore", "--json", "--html")
    own: list[str] = []
    program: list[str] = []
    rest = list(words)
    while rest and (rest[0].startswith("--") or rest[0] == "-h"):
        word = rest.pop(0)
        (program if word == "--streams" else own).append(word)
        if word in values and rest:
            own.append(rest.pop(0))
    return own, program + rest


def main(words: list[str]) -> None:
    """Run what the command line asks for; leave as the program does, or --check."""
    own, program = _divide(words)
    parser = _parser()
    options = parser.parse_args(own)
    if not program or program == ["--streams"]:
        parser.error("a program is needed: a file, -m MODULE, -c COMMAND or -")
    try:
        doctor = Doctor(
            slow=options.slow,
            await_limit=options.await_limit,
            task_limit=options.task_limit,
            ignore=options.ignore,
            libraries=options.libraries,
        )
    except ValueError as error:
        parser.error(str(error))
    # The program may change the folder.
    outputs = [path and os.path.abspath(path) for path in (options.json, options.html)]
    pid = os.getpid()
    failed = True
    try:
        with doctor:
            _program.main(program)
        failed = False
    except SystemExit as error:
        failed = error.code not in (None, 0)
        raise
    finally:
        if os.getpid() == pid:
            _tell(doctor, *outputs)
            if options.check and not failed and doctor.report.problems:
                sys.exit(1)


def _tell(doctor: Doctor, json_path: str | None, html_path: str | None) -> None:
    report = doctor.report
    if sys.stderr is not None:
        sys.stderr.write(report.text())
        sys.stderr.flush()
    for path, write in ((json_path, report.json), (html_path, report.html)):
        if path:
            with open(path, "w", encoding="utf-8") as file:
                file.write(write())
