"""Suite *dns*: CPU time of one lookup, all threads counted."""

from __future__ import annotations

from ..model import Row
from ..rows import DNS_ROWS
from .tasks import TasksSuite


class DnsSuite(TasksSuite):
    """Rows of `benchmarks.rows.dns`, in nanoseconds per lookup."""

    name = "dns"

    def rows(self) -> list[Row]:
        return [Row(self.name, name, "ns") for name in DNS_ROWS]
