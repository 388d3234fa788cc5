"""The doctor's page in a browser: drawn, quick with many tasks, and safe.

It needs Chromium or Chrome, which runs without a display; without one it is skipped.
"""

from __future__ import annotations

import html
import pathlib
import re
import shutil
import subprocess

import pytest

from hotloop.doctor import Finding, Report

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--no-first-run",
    "--window-size=1200,900",
    "--virtual-time-budget=5000",
)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")


def report(count: int) -> Report:
    """A run with many tasks, some of which have names that are HTML."""
    rows = [
        {
            "number": number,
            "name": EVIL if number % 1000 == 1 else f"task-{number}",
            "coroutine": "work",
            "file": EVIL,
            "line": 7,
            "outcome": "done",
            "begin": number / count,
            "end": number / count + 0.5,
            "running": [number / count + i / 100 for i in range(40)],
        }
        for number in range(1, count + 1)
    ]
    finding = Finding(
        kind="blocking-call",
        severity="warning",
        file=EVIL,
        line=7,
        function=EVIL,
        source=EVIL,
        task=EVIL,
        seen=EVIL,
        change=EVIL,
        count=2,
        at=0.3,
        docs=EVIL,
        tasks=(1,),
    )
    return Report([finding], 1.5, count, count, [EVIL], lambda: rows)


def show(page: str, tmp_path: pathlib.Path, *flags: str) -> str:
    """What the browser has made of a page."""
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *FLAGS, profile, *flags, f"file://{tmp_path / 'page.html'}"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.stdout


def test_page(tmp_path: pathlib.Path) -> None:
    dom = show(report(10_000).html(), tmp_path, "--dump-dom")
    assert "<title>hotloop doctor</title>" in dom, "a script in a name was run"
    drawn = re.search(r'data-drawn="(\d+)"', dom)
    assert drawn and 5 < int(drawn[1]) < 100, "only the rows in sight are drawn"
    assert "10000 of 10000 tasks" in dom
    body = dom.partition("<h2>Findings</h2>")[2].partition("<h2>Tasks</h2>")[0]
    assert body.count(html.escape(EVIL, quote=False)) >= 5
    assert "<img" not in body and "<script" not in body


def test_it_is_seen(tmp_path: pathlib.Path) -> None:
    picture = tmp_path / "page.png"
    show(report(100).html(), tmp_path, f"--screenshot={picture}")
    empty = tmp_path / "empty.png"
    without = report(0)
    without.findings, without.failures = [], []
    show(without.html(), tmp_path, f"--screenshot={empty}")
    # What is drawn makes a picture that cannot be pressed as small.
    assert picture.stat().st_size > 1.5 * empty.stat().st_size
