"""Says where services are, and lives until its standard input ends.

They are started around it: ``python tests/integration/services.py postgres redis --
python -m benchmarks.workers.addresses``.
"""

from __future__ import annotations

import os
import sys

from ..child import answer, die_with_parent

VARIABLES = ("POSTGRES_DSN", "REDIS_URL")

if __name__ == "__main__":
    die_with_parent()
    answer({name: os.environ[name] for name in VARIABLES if name in os.environ})
    sys.stdin.read()
