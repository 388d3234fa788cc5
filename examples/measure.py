"""Run the examples on asyncio, uvloop and hotloop and compare what they measure.

    python examples/measure.py [--rounds 5] [NAME...]

Needs rich; uvloop and what an example imports are left out where not installed. Each
example prints a figure, more is better, as its last line. The loops take turns, so
that what else the machine does meets all of them; the best round of each counts.
Client and server run in one process here: see benchmarks/ for servers alone.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import math
import os
import platform
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
LOOPS = ("asyncio", "uvloop", "hotloop")
EXAMPLES = (
    *("echo_streams", "echo_protocol", "echo_buffered", "chat_server", "tcp_proxy"),
    *("udp_service", "tls_service", "multi_process", "file_transfer"),
    *("subprocess_pipeline", "graceful_shutdown", "websocket_broadcast"),
    *("http_fetch", "http_fetch --client httpx", "crawler", "connection_pool"),
    *("retry", "rate_limit", "queue_workers", "micro_batch", "event_bus"),
    *("async_pipeline", "background_tasks", "task_groups", "context_managers"),
    *("cpu_pools", "rest_service"),
)
FIGURE = re.compile(r"([\d,]+) (\S+/s)\n?")


@dataclass
class Case:
    """An example with its arguments, and the best figure of each loop."""

    command: list[str]
    unit: str = ""
    best: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return " ".join(self.command)

    async def run(self, loop: str) -> None:
        name, *arguments = self.command
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, HERE / "run_with.py", loop, HERE / f"{name}.py"),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await process.communicate()
        except asyncio.CancelledError:
            process.terminate()
            await process.wait()
            raise
        last = out.decode().splitlines(keepends=True)[-1:]
        match = FIGURE.fullmatch(last[0]) if last else None
        if process.returncode or match is None:
            self.errors.append(f"{self.title} on {loop}:\n{err.decode()}")
            return
        figure = float(match[1].replace(",", ""))
        self.unit = match[2]
        self.best[loop] = max(figure, self.best.get(loop, 0))


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def can_run(case: Case) -> bool:
    source = (HERE / f"{case.command[0]}.py").read_text()
    packages = re.findall(r"^(?:from|import) (\w+)", source, re.M)
    services = "POSTGRES_DSN" not in source or "POSTGRES_DSN" in os.environ
    return services and all(map(installed, packages))


def ratio(case: Case, loop: str, other: str) -> float | None:
    if loop not in case.best or other not in case.best:
        return None
    return case.best[loop] / case.best[other]


def table_of(cases: list[Case], loops: list[str]) -> Table:
    base = "uvloop" if "uvloop" in loops else "asyncio"
    table = Table(title=f"Each example on each loop; in brackets the ratio to {base}")
    table.add_column("example")
    for loop in loops:
        table.add_column(loop, justify="right")
    table.add_column("", no_wrap=True)
    for case in cases:
        cells = []
        for loop in loops:
            share = ratio(case, loop, base)
            figure = f"{case.best[loop]:,.0f}" if loop in case.best else "failed"
            cells.append(figure if share is None else f"{figure} ({share:.2f})")
        table.add_row(case.title, *cells, case.unit)
    means = []
    for loop in loops:
        shares = [share for case in cases if (share := ratio(case, loop, base))]
        mean = math.prod(shares) ** (1 / len(shares)) if shares else 0
        means.append(f"({mean:.2f})")
    table.add_section()
    table.add_row("geometric mean", *means, "")
    return table


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of an example")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    loops = [loop for loop in LOOPS if installed(loop)]
    cases = [Case(text.split()) for text in EXAMPLES]
    if options.names:
        cases = [case for case in cases if case.command[0] in options.names]
    cases = [case for case in cases if can_run(case)]
    console = Console()
    with console.status("") as status:
        for number in range(1, options.rounds + 1):
            for case in cases:
                for loop in loops:
                    status.update(f"round {number}: {case.title} on {loop}")
                    await case.run(loop)
    console.print(table_of(cases, loops))
    console.print(f"CPython {platform.python_version()}, best of {options.rounds}")
    errors = [error for case in cases for error in case.errors]
    if errors:
        raise SystemExit("\n".join(errors))


if __name__ == "__main__":
    asyncio.run(main())
