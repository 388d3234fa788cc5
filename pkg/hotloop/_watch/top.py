"""``python -m hotloop top``: a running loop, as ``top`` shows processes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator

from .._metrics import Metrics
from . import plain, screen
from .page import SORTS, Page, Table, command, count, page, percent
from .samples import Interval, Watch
from .targets import HOW, Client, ControlError, NoTarget, connect, end, find, seconds

_SORT_KEYS = {"t": "time", "c": "calls", "m": "mean", "x": "max", "n": "name"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m hotloop top",
        description="Show what a running loop does. Without a target: which there are.",
        epilog=HOW,
    )
    made.add_argument(
        "target", nargs="?", help="a process, PID or PID-NUMBER, or a socket's path"
    )
    made.add_argument(
        "--interval", type=seconds, default=1.0, metavar="SECONDS", help="(1)"
    )
    made.add_argument("--once", action="store_true", help="show one interval and end")
    made.add_argument(
        "--json", action="store_true", help="an object in a line for each interval"
    )
    made.add_argument("--plain", action="store_true", help="text, on no full screen")
    made.add_argument("--sort", choices=SORTS, default="time")
    made.add_argument(
        "--rows", type=int, default=10, help="of each table, as text (10)"
    )
    made.add_argument(
        "--no-profile",
        action="store_true",
        help="take no time of each callback, which costs the program a little",
    )
    return made


# ---- which loops there are ----


def _line(client: Client) -> list[str]:
    about = client.ask("about")
    metrics = Metrics.from_dict(client.ask("metrics"))
    running = metrics.run_seconds or 1.0
    return [
        "running" if about["running"] else "not running",
        percent(metrics.busy_seconds / running),
        count(metrics.tasks),
        count(metrics.connections_open),
        command(about),
    ]


def listing() -> str:
    """A table of this user's loops."""
    rows = []
    for place in find():
        with contextlib.suppress(OSError, ControlError), Client(place.path) as client:
            name = f"{place.pid}-{place.number}"
            rows.append([name, *_line(client)])
    if not rows:
        raise NoTarget(f"no loop with a control socket was found.\n{HOW}")
    headings = ["loop", "state", ">busy", ">tasks", ">connections", "command"]
    return "\n".join(plain.table(Table("", headings, rows)))


# ---- showing one of them ----


class Top:
    """Shows the intervals of one loop, one after the other."""

    def __init__(self, client: Client, options: argparse.Namespace) -> None:
        self._client = client
        self._interval: float = options.interval
        self._sort: str = options.sort
        self._rows: int = options.rows
        self._profiles = not options.no_profile
        client.ask("enable_profile", on=self._profiles)
        self._watch = Watch(client, limit=max(self._rows, 100))

    def intervals(self) -> Iterator[Interval]:
        """The intervals, each when it has passed."""
        while True:
            time.sleep(self._interval)
            yield self._watch.next()

    def page(self, interval: Interval, rows: int | None = None) -> Page:
        """An interval as it is to be shown."""
        return page(interval, self._sort, self._rows if rows is None else rows)

    def on_screen(self) -> None:
        """Show them on the full screen until somebody presses q."""
        with screen.full_screen() as (show, height), screen.keys() as keys:
            interval = self._watch.next()
            while True:
                due = time.monotonic() + self._interval
                rows = screen.rows_of(height(), len(interval.blocked))
                show(self.page(interval, rows))
                while (left := due - time.monotonic()) > 0:
                    key = keys.wait(left)
                    if key == "q":
                        return
                    if self._pressed(key):
                        show(self.page(interval, rows))
                interval = self._watch.next()

    def _pressed(self, key: str) -> bool:
        if key in _SORT_KEYS:
            self._sort = _SORT_KEYS[key]
        elif key == "p":
            self._profiles = not self._profiles
            self._client.ask("enable_profile", on=self._profiles)
        return key in _SORT_KEYS


def _as_text(top: Top, options: argparse.Namespace) -> None:
    write: Callable[[Interval], str] = _json if options.json else _plain(top)
    for interval in top.intervals():
        print(write(interval), flush=True)
        if options.once:
            return


def _json(interval: Interval) -> str:
    return json.dumps(interval.as_dict())


def _plain(top: Top) -> Callable[[Interval], str]:
    return lambda interval: plain.text(top.page(interval)) + "\n"


def watch(options: argparse.Namespace) -> None:
    """Show the loop that was asked for until it ends."""
    text = options.once or options.json or options.plain
    if not text and not (sys.stdout.isatty() and screen.available()):
        text = True
    with connect(options.target) as client:
        try:
            top = Top(client, options)
            if text:
                _as_text(top, options)
            else:
                top.on_screen()
        except (ConnectionResetError, TimeoutError, ControlError) as error:
            why = getattr(error, "strerror", None) or error
            print(f"{options.target}: {why}", file=sys.stderr)


def main(words: list[str]) -> None:
    """Run the command."""
    options = parser().parse_args(words)
    try:
        if options.target is None:
            print(listing())
        else:
            watch(options)
    except NoTarget as error:
        end("top", error)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Nobody reads on; what Python flushes at its end must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
