"""A doctor for asyncio programs: watches one run and reports its mistakes.

with Doctor() as doctor:
    asyncio.run(main())
print(doctor.report.text())

``python -m hotloop doctor script.py`` does so for a program as it is. The kinds of
findings and their limits are described in docs/doctor.md.
"""

from __future__ import annotations

from ._doctor import Doctor, examine
from ._findings import Finding, Report

__all__ = ["Doctor", "Finding", "Report", "examine"]
