"""What programs do with a loop, with the part that is to suffer marked.

Each function gets a Faults; inside `with faults:` calls may fail. What a scenario
raises is judged in play.py. A coroutine function runs as a task of a loop; another
one makes its loops itself.
"""

from __future__ import annotations

from . import connections, network, scheduling
from .common import SCENARIOS

__all__ = ["SCENARIOS", "connections", "network", "scheduling"]
