"""The report as a page with a timeline, in one file."""

from __future__ import annotations

import importlib.resources
import json

from ._findings import Report
from ._text import as_dict, relative

_DATA = "@DATA@"


def write_html(report: Report) -> str:
    """Return a page that needs nothing from anywhere else.

    The data is JSON without any "<", which the page's script puts into the page as
    text only.
    """
    data = as_dict(report)
    files: dict[str, int] = {}
    data["rows"] = [
        [
            row["number"],
            row["name"],
            row["coroutine"],
            files.setdefault(relative(row["file"]), len(files)),
            row["line"],
            row["outcome"],
            row["begin"],
            row["end"],
            row["running"],
        ]
        for row in report.timeline
    ]
    data["files"] = list(files)
    text = json.dumps(data, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    page = importlib.resources.files(__package__).joinpath("timeline.html")
    before, _, after = page.read_text(encoding="utf-8").partition(_DATA)
    return before + text + after
