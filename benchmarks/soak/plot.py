"""Plot of a run: memory, descriptors and latency over time."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib import pyplot

from .verdict import MIB, Sample

SIZE = (9.0, 8.0)


def draw(samples: list[Sample], path: Path, loop: str) -> None:
    """Draw the samples into an image file; its suffix says the format."""
    matplotlib.use("agg")
    minutes = [sample["seconds"] / 60 for sample in samples]
    figure, panels = pyplot.subplots(
        3, 1, figsize=SIZE, sharex=True, layout="constrained"
    )
    memory, descriptors, latency = panels
    for name in ("server", "load"):
        seen = [sample["seen"][name] for sample in samples]
        memory.plot(minutes, [one["private"] / MIB for one in seen], label=name)
        descriptors.plot(minutes, [one["descriptors"] for one in seen], label=name)
    for name in ("p50", "p99"):
        probe = [sample["probe"][name] for sample in samples]
        latency.plot(minutes, probe, label=f"probe, {name}")
        every = [sample["inside"]["load"][name] for sample in samples]
        latency.plot(minutes, every, "--", label=f"all exchanges, {name}")
    memory.set_ylabel("resident MiB")
    descriptors.set_ylabel("descriptors")
    latency.set_ylabel("milliseconds")
    latency.set_yscale("log")
    latency.set_xlabel("minutes")
    for panel in (memory, descriptors):
        panel.set_ylim(bottom=0)
    for panel in panels:
        panel.grid(linewidth=0.3)
        panel.legend(fontsize="small", loc="center right")
    figure.suptitle(f"soak of {loop}")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
