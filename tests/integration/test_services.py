"""The servers that the integration tests start: they answer, and they end."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

import services

PROGRAM = str(pathlib.Path(services.__file__))
ADDRESSES = "import os; print(os.environ['REDIS_URL'], os.environ['POSTGRES_DSN'])"
# Starts a server, says where, and waits: for a signal or for the end of input.
WITH_REDIS = """
import sys
import services

with services.Redis() as redis:
    print(redis.folder, redis._process.pid, flush=True)
    sys.stdin.read()
"""


def is_gone(pid: int) -> bool:
    """Whether a process that is not our child has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def start(*command: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(PROGRAM).parent)}
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    )


@pytest.mark.parametrize("number", [0, signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_its_process(number: int) -> None:
    with start("-c", WITH_REDIS) as process:
        assert process.stdout is not None
        folder, pid = process.stdout.readline().split()
        assert os.path.isdir(folder)
        assert not is_gone(int(pid))
        if number:
            process.send_signal(number)
    services.await_that(lambda: is_gone(int(pid)), "the server has gone")
    services.await_that(lambda: not os.path.exists(folder), "so has its folder")


def test_a_command_gets_the_addresses() -> None:
    command = ["--", sys.executable, "-c", f"{ADDRESSES}; raise SystemExit(7)"]
    with start(PROGRAM, "redis", "postgres", *command) as process:
        output, _ = process.communicate()
    assert process.returncode == 7
    redis, postgres = output.split()
    assert redis.startswith("redis://127.0.0.1:")
    assert postgres.startswith("postgresql://hotloop:hotloop@127.0.0.1:")


@pytest.mark.parametrize(
    "arguments", [[], ["redis"], ["redis", "--"], ["x", "--", "y"]]
)
def test_the_command_line_must_make_sense(arguments: list[str]) -> None:
    with start(PROGRAM, *arguments) as process:
        output, _ = process.communicate()
    assert process.returncode == 2
    assert output.startswith("usage: ")


def test_a_terminated_program_ends_its_command() -> None:
    command = "import time; print(flush=True); time.sleep(600)"
    with start(PROGRAM, "redis", "--", sys.executable, "-c", command) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM


def test_a_port_stays_ours_while_its_server_is_away() -> None:
    port = services.Port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((services.LOOPBACK, port.number))
    for _ in range(2):
        with socket.create_server((services.LOOPBACK, port.number)) as server:
            assert server.getsockname()[1] == port.number
    port.close()
    with socket.socket() as other:
        other.bind((services.LOOPBACK, port.number))


def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        services.Redis, "command", lambda _: ["redis-server", "--nonsense", "1"]
    )
    server = services.Redis()
    with pytest.raises(RuntimeError, match="nonsense"), server:
        pass
    assert not server.folder.exists()


def test_a_restarted_server_is_where_it_was(redis_server: services.Redis) -> None:
    address = (services.LOOPBACK, redis_server.port)
    with socket.create_connection(address) as client:
        client.sendall(b"PING\r\n")
        assert client.recv(100) == b"+PONG\r\n"
        redis_server.kill()
        assert client.recv(1) == b""
    redis_server.start()
    assert services.answer(address, b"PING\r\n") == b"+PONG\r\n"
    redis_server.restart()
    assert services.answer(redis_server.socket_path, b"PING\r\n") == b"+PONG\r\n"
