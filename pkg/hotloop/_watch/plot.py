"""``python -m hotloop plot``: a recording as a picture, by matplotlib."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._metrics import Metrics
from .page import command
from .record import Recording, read
from .targets import end

Series = dict[str, Callable[[Metrics], float]]


def _rate(name: str) -> Callable[[Metrics], float]:
    return lambda m: float(getattr(m, name)) / m.seconds


def _level(name: str) -> Callable[[Metrics], float]:
    return lambda m: float(getattr(m, name))


def _part(name: str) -> Callable[[Metrics], float]:
    return lambda m: 100 * float(getattr(m, name)) / m.seconds


# Each with its unit: logarithmic where small and large values matter alike.
PANELS: list[tuple[str, str, bool, Series]] = [
    (
        "time",
        "% of the time",
        False,
        {
            "busy": _part("busy_seconds"),
            "waiting for the GIL": _part("gil_seconds"),
        },
    ),
    (
        "lag",
        "ms",
        True,
        {
            "p50": lambda m: m.lag.p50 * 1e3,
            "p99": lambda m: m.lag.p99 * 1e3,
            "max": lambda m: m.lag.max * 1e3,
        },
    ),
    (
        "rates",
        "per second",
        True,
        {
            "turns": _rate("turns"),
            "callbacks": _rate("callbacks"),
            "steps of tasks": _rate("task_steps"),
        },
    ),
    (
        "queues",
        "",
        False,
        {
            "ready": _level("ready"),
            "timers": _level("timers"),
            "tasks": _level("tasks"),
        },
    ),
    (
        "network",
        "MB per second",
        False,
        {
            "received": lambda m: m.bytes_received / m.seconds / 1e6,
            "sent": lambda m: m.bytes_sent / m.seconds / 1e6,
        },
    ),
    (
        "connections",
        "",
        False,
        {
            "open": _level("connections_open"),
            "made per second": _rate("connections_made"),
        },
    ),
]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m hotloop plot",
        description="Draw a recording of python -m hotloop record.",
    )
    made.add_argument("recording", type=Path)
    made.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="the picture: .svg, .png or .pdf (the recording's name with .svg)",
    )
    return made


def intervals(recording: Recording) -> tuple[list[float], list[Metrics]]:
    """The end of each interval, in seconds from the beginning, and what happened."""
    times, found = [], []
    start = recording.snapshots[0].time if recording.snapshots else 0.0
    for earlier, later in itertools.pairwise(recording.snapshots):
        if later.time > earlier.time:
            times.append(later.time - start)
            found.append(later.since(earlier))
    return times, found


def draw(recording: Recording, out: Path) -> None:
    """Draw a recording of at least two snapshots into a file."""
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text, and the same recording gives the same file.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "hotloop", "font.size": 8}
    times, found = intervals(recording)
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(9, 6.5), layout="constrained")
        figure.suptitle(command(recording.about))
        axes = figure.subplots(3, 2, sharex=True)
        for axis, (title, unit, log, series) in zip(axes.flat, PANELS, strict=True):
            _panel(axis, times, found, series)
            axis.set_title(title, loc="left", fontweight="bold")
            axis.set_ylabel(unit)
            # Zeros have no place on a logarithmic axis.
            if log and any(line.get_ydata().max() > 0 for line in axis.get_lines()):
                axis.set_yscale("log", nonpositive="mask")
                axis.minorticks_off()
            else:
                axis.set_ylim(bottom=0)
        for axis in axes[-1]:
            axis.set_xlabel("seconds")
        metadata = {"Date": None} if out.suffix == ".svg" else None
        figure.savefig(out, metadata=metadata)


def _panel(axis: Any, times: list[float], found: list[Metrics], series: Series) -> None:
    for label, value in series.items():
        axis.plot(times, [value(m) for m in found], label=label, linewidth=1)
    axis.grid(alpha=0.3)
    # Above the lines, opposite to the title.
    place = {"loc": "lower right", "bbox_to_anchor": (1, 0.96)}
    axis.legend(frameon=False, ncols=len(series), **place)


def main(words: list[str]) -> None:
    """Run the command."""
    options = parser().parse_args(words)
    out = options.out or options.recording.with_suffix(".svg")
    try:
        recording = read(options.recording)
        if not intervals(recording)[0]:
            raise ValueError(f"{options.recording} has fewer than two snapshots")
        draw(recording, out)
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        end("plot", ImportError("matplotlib is missing: pip install hotloop[plot]"))
    except (OSError, ValueError) as error:
        end("plot", error)
    print(out)
