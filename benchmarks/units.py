"""How figures are written."""

from __future__ import annotations

MICROSECONDS_FROM = 10_000


def show(value: float, unit: str) -> str:
    """Write one figure with its unit."""
    if unit == "req/s":
        return f"{value:,.0f} req/s"
    if unit == "bytes":
        return f"{value:,.0f} B"
    if unit == "ns" and value >= MICROSECONDS_FROM:
        return f"{value / 1000:.1f} µs"
    return f"{value:,.0f} {unit}"
