"""Plot of a run: how many times better than the baseline, row by row."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from .model import Results, Row
from .ratios import geometric_mean, ratio

COLOURS = {
    "asyncio": "#9aa5b1",
    "uvloop": "#3b7dd8",
    "rloop": "#e08a2e",
    "zuvloop": "#8a63b8",
    "hotloop": "#d1344b",
    "libuv-c": "#5d5d5d",
    "mmsg-c": "#5d5d5d",
    "c": "#5d5d5d",
    "no-loop": "#5d5d5d",
    "uvloop+aiofastnet": "#2f9e77",
}
TICKS = (0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16)
LEAST_RANGE = (0.4, 2.5)
WIDTH = 10.0
INCHES_PER_BAR = 0.13
MARGIN = 0.8
GROUP = 0.8


def draw(results: Results, path: Path, baseline: str) -> None:
    """Draw one panel per suite into an image file; its suffix says the format."""
    matplotlib.use("agg")
    loops = {suite: compared(results, suite, baseline) for suite in results.suites}
    heights = [
        (len(results.rows(suite)) + 1) * (len(names) + 1) * INCHES_PER_BAR + MARGIN
        for suite, names in loops.items()
    ]
    figure, panels = pyplot.subplots(
        len(loops),
        1,
        figsize=(WIDTH, sum(heights)),
        squeeze=False,
        layout="constrained",
        gridspec_kw={"height_ratios": heights},
    )
    for panel, (suite, names) in zip(panels[:, 0], loops.items(), strict=True):
        draw_suite(panel, results, suite, names, baseline)
    figure.suptitle(
        f"{results.meta['implementation']} {results.meta['python']}: "
        f"times better than {baseline} (right is better)"
    )
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def compared(results: Results, suite: str, baseline: str) -> list[str]:
    """The loops that have something to compare in this suite."""
    return [
        loop
        for loop in results.loops
        if loop != baseline
        and geometric_mean(results, suite, loop, baseline) is not None
    ]


def draw_suite(
    panel: Axes, results: Results, suite: str, loops: list[str], baseline: str
) -> None:
    """Draw the bars of one suite, with the geometric mean last."""
    rows = results.rows(suite)
    height = GROUP / max(1, len(loops))
    bars = {loop: bars_of(results, rows, loop, baseline) for loop in loops}
    most = max(map(len, bars.values()), default=0)
    for index, (loop, known) in enumerate(bars.items()):
        mean = geometric_mean(results, suite, loop, baseline)
        # A mean of fewer rows than the others have would compare nothing.
        if len(known) == most and mean is not None:
            known.append((len(rows), mean))
        panel.barh(
            [i + (index + 0.5) * height - GROUP / 2 for i, _ in known],
            [value - 1 for _, value in known],
            height,
            left=1,
            label=loop,
            color=COLOURS.get(loop),
        )
    panel.set_title(suite, loc="left")
    panel.set_yticks(range(len(rows) + 1), [*(r.name for r in rows), "geometric mean"])
    panel.set_ylim(len(rows) + 0.6, -0.6)
    draw_scale(panel)
    if loops:
        panel.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def bars_of(
    results: Results, rows: list[Row], loop: str, baseline: str
) -> list[tuple[int, float]]:
    """The positions and the ratios of the rows that this loop has."""
    values = [ratio(results, row, loop, baseline) for row in rows]
    return [(i, value) for i, value in enumerate(values) if value is not None]


def draw_scale(panel: Axes) -> None:
    """Give a panel its logarithmic scale, with a line at 1."""
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    low, high = min(low, LEAST_RANGE[0]), max(high, LEAST_RANGE[1])
    panel.set_xlim(low, high)
    panel.set_xticks([tick for tick in TICKS if low <= tick <= high])
    panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}x"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.axvline(1, color="black", linewidth=0.8)
    panel.grid(axis="x", linewidth=0.3)
    panel.set_axisbelow(True)
