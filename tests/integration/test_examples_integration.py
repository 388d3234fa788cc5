"""The examples that need packages or servers beyond those of `make test`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import services
from support import ROOT

# What the REST service prints before its figure.
EXPECTED = """\
first reads: True, 100 loads, 0 hits
second reads: True, 100 loads, 100 hits
changed: 204, 1000
not there: 404
"""


def run(loop: str, name: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = ["examples/run_with.py", loop, f"examples/{name}.py", "--count", "200"]
    return subprocess.run(
        [sys.executable, "-W", "default", "-W", "ignore::DeprecationWarning", *command],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_rest_service(
    loop_kind: str,
    plain_postgres: services.Postgres,
    redis_server: services.Redis,
) -> None:
    where = {"POSTGRES_DSN": plain_postgres.url, "REDIS_URL": redis_server.url}
    done = run(loop_kind, "rest_service", **where)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines(keepends=True)
    assert "".join(lines[:-1]) == EXPECTED
    assert lines[-1].endswith(" requests/s\n")


def test_rest_service_without_its_cache(
    loop_kind: str, plain_postgres: services.Postgres
) -> None:
    """Slower, and right all the same."""
    nobody = "redis://127.0.0.1:1/0"
    where = {"POSTGRES_DSN": plain_postgres.url, "REDIS_URL": nobody}
    done = run(loop_kind, "rest_service", **where)
    assert (done.returncode, done.stderr) == (0, "")
    expected = EXPECTED.replace("100 loads, 100 hits", "200 loads, 0 hits")
    assert done.stdout.startswith(expected)


@pytest.mark.parametrize("missing", ["POSTGRES_DSN", "REDIS_URL"])
def test_rest_service_says_what_it_needs(missing: str) -> None:
    where = {"POSTGRES_DSN": "postgresql://x", "REDIS_URL": "redis://x"}
    done = run("hotloop", "rest_service", **{**where, missing: ""})
    assert done.returncode == 1
    assert missing in done.stderr and done.stderr.count("\n") == 1
