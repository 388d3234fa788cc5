"""What a run showed: the samples in, the sentences out."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

SHARE = 4  # a quarter of the samples is compared with another
MIB = 1 << 20
CHORES = (
    *("timers", "timers fired", "timers cancelled"),
    *("tasks", "tasks done", "tasks cancelled", "executor calls", "children"),
)

Sample = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """How much memory may grow, as a share: what is handed out, what is mapped."""

    handed_out: float
    resident: float


@dataclass
class Verdict:
    """Figures to read, and what is wrong with them."""

    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def state(self, line: str, failed: bool = False) -> None:
        self.lines.append(f"{'FAILED  ' if failed else '        '}{line}")
        if failed:
            self.failures.append(line)


def quarters(samples: list[Sample], *path: str) -> tuple[float, float]:
    """Return the medians of a figure in the first and in the last quarter."""
    values = []
    for sample in samples:
        value: Any = sample
        for name in path:
            value = value[name]
        values.append(float(value))
    count = max(1, len(values) // SHARE)
    return median(values[:count]), median(values[-count:])


def growth(before: float, after: float) -> float:
    return after / before - 1 if before else 0.0


def judge_memory(
    verdict: Verdict, name: str, before: Sample, after: Sample, limits: Limits
) -> None:
    """Compare what two moments had, with all connections open and idle.

    The memory that is mapped may grow by fragmentation alone; a leak shows in what
    the allocators have handed out, too.
    """
    seen, inside = before["seen"][name], before["inside"][name]
    seen_later, inside_later = after["seen"][name], after["inside"][name]
    private = growth(seen["private"], seen_later["private"])
    handed_out = growth(inside["malloc"], inside_later["malloc"])
    blocks = growth(inside["blocks"], inside_later["blocks"])
    text = (
        f"{name}: resident {seen['private'] / MIB:.1f} -> "
        f"{seen_later['private'] / MIB:.1f} MiB ({private:+.2%}), "
        f"blocks of Python {blocks:+.2%}, malloc {handed_out:+.2%}, "
        f"objects {growth(inside['objects'], inside_later['objects']):+.2%}"
    )
    leaks = max(blocks, handed_out) > limits.handed_out
    if leaks or private > limits.resident:
        text += ": a leak" if leaks else ": fragmentation"
    verdict.state(text, leaks or private > limits.resident)


def judge_running(verdict: Verdict, name: str, samples: list[Sample]) -> None:
    """Report the same under load, and the latencies."""
    first, last = quarters(samples, "seen", name, "private")
    verdict.state(
        f"{name} under load, first and last quarter: {first / MIB:.1f} -> "
        f"{last / MIB:.1f} MiB ({growth(first, last):+.2%})"
    )


def judge_descriptors(verdict: Verdict, name: str, run: dict[str, Sample]) -> None:
    """Descriptors, and so connections, are what they were."""
    before, first, last, after = (
        run[moment]["seen"][name]["descriptors"]
        for moment in ("begun", "quiet first", "quiet last", "ended")
    )
    verdict.state(
        f"{name}: descriptors {before} before, {first} -> {last} with all "
        f"connections, {after} after",
        failed=first != last or before != after,
    )


def judge_bytes(verdict: Verdict, ended: Sample, dropped: int) -> None:
    """Nothing is lost, and nothing went wrong that was not meant to."""
    counts = {name: ended["inside"][name]["counts"] for name in ended["inside"]}
    load, server = counts["load"], counts["server"]
    verdict.state(
        f"{load.get('exchanges', 0):,} exchanges, "
        f"{load.get('bytes sent', 0):,} bytes there, "
        f"{load.get('bytes received', 0):,} back; "
        f"{load.get('compared', 0):,} connections compared their sums",
        failed=not load.get("exchanges"),
    )
    lost = load.get("datagrams lost", 0)
    verdict.state(
        f"{load.get('datagrams sent', 0):,} datagrams, {lost} without an answer, "
        f"{dropped} dropped by the kernel",
        failed=lost > dropped,
    )
    for name in counts:
        for text, number in sorted(ended["inside"][name]["errors"].items()):
            verdict.state(f"{name}: {number} x {text}", failed=True)
    for kind in ("stream", "tls", "protocol", "websocket"):
        opened, closed = (server.get(f"{kind} {s}", 0) for s in ("opened", "closed"))
        verdict.state(f"{kind}: {opened:,} opened, {closed:,} closed", opened != closed)
    ways = sorted((k, n) for k, n in load.items() if " ended: " in k)
    verdict.lines += [f"        {name}: {number:,}" for name, number in ways]
    for name, found in counts.items():
        numbers = {chore: found.get(chore, 0) for chore in CHORES}
        lost = numbers["timers"] - numbers["timers fired"] - numbers["timers cancelled"]
        lost += numbers["tasks"] - numbers["tasks done"] - numbers["tasks cancelled"]
        verdict.state(
            f"{name}: " + ", ".join(f"{n:,} {chore}" for chore, n in numbers.items()),
            failed=lost != 0,
        )


def judge(
    run: dict[str, Sample], samples: list[Sample], dropped: int, limits: Limits
) -> Verdict:
    """Return what is to be said about a run; memory may grow by the limits."""
    verdict = Verdict()
    for name in ("server", "load"):
        judge_memory(verdict, name, run["quiet first"], run["quiet last"], limits)
        judge_running(verdict, name, samples)
        judge_descriptors(verdict, name, run)
    for figure in ("p50", "p99"):
        first, last = quarters(samples, "probe", figure)
        verdict.state(
            f"probe's {figure}, first and last quarter: {first:.2f} -> {last:.2f} ms"
        )
        first, last = quarters(samples, "inside", "load", figure)
        verdict.state(f"all exchanges' {figure}: {first:.2f} -> {last:.2f} ms")
    judge_bytes(verdict, run["ended"], dropped)
    return verdict
