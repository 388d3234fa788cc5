"""How much better a loop is than another one."""

from __future__ import annotations

import math

from .model import Results, Row


def ratio(results: Results, row: Row, loop: str, baseline: str) -> float | None:
    """Times better than the baseline, above 1 when better; None if unknown."""
    cells = results.cell(row, loop), results.cell(row, baseline)
    best = [cell.best if cell else None for cell in cells]
    if best[0] is None or best[1] is None or not best[0].value or not best[1].value:
        return None
    quotient = best[0].value / best[1].value
    return quotient if row.higher_is_better else 1 / quotient


def geometric_mean(
    results: Results, suite: str, loop: str, baseline: str
) -> float | None:
    """Geometric mean of the ratios of all rows that both loops have."""
    ratios = [ratio(results, row, loop, baseline) for row in results.rows(suite)]
    known = [value for value in ratios if value is not None]
    if not known:
        return None
    return math.exp(sum(math.log(value) for value in known) / len(known))
