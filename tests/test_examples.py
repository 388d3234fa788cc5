"""The examples run on asyncio and on hotloop, and say what they should."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support import ROOT, finish_script

Start = Callable[..., subprocess.Popen[str]]

# In debug mode a loop complains of a slow machine. What packages are about to
# lose is their affair.
SLOW = re.compile(r"Executing <.*> took \d+\.\d+ seconds\n")
FIGURE = re.compile(r"[\d,]+ [\w ]+/s")
LIBRARIES = ["-W", "ignore::DeprecationWarning"]
# With and without the other ways through a loop that debug mode takes; warnings,
# of what was left open before all, are shown in each.
RUNS = [("asyncio", "-Xdev"), ("hotloop", "-Xdev"), ("hotloop", "-Wdefault")]

PLAIN = [("asyncio", "-Wdefault"), ("hotloop", "-Wdefault")]
NOT_DEBUG = ["tls_service"]  # there servers report each client turned away

# What each example prints before its figure, when it is given these arguments.
EXPECTED = {
    "echo_streams --count 10": """\
        200 lines echoed""",
    "echo_protocol --clients 10 --count 20": """\
        10 clients, 20 right answers each
        8388608 bytes sent before reading: came back same=True""",
    "echo_buffered --clients 3 --count 4": """\
        3 of 3 clients got back what they sent
        3145728 bytes each way""",
    "chat_server --rooms 2 --count 3": """\
        40 clients said 3 lines each
        2400 lines delivered, 60 to 60 to each""",
    "tcp_proxy --clients 4 --size 1000000": """\
        4 of 4 clients: right answer after a half-close
        without a target the client is turned away: True""",
    "websocket_broadcast --listeners 10 --count 10": """\
        10 listeners, 10 to 10 messages each""",
    "queue_workers --count 2000": """\
        2000 items, sum is right: True
        a consumer failed: 1000 is too big
        0 tasks left""",
    "rate_limit --count 500": """\
        250 calls, at most 10 at once
        a burst of 50, then the rate: True
        500 calls with room for all, results in order: True""",
    "retry --count 20": """\
        20 clients greeted: True, after 80 attempts
        two attempts are too few: IncompleteReadError
        nobody listens: given up at the time limit""",
    "connection_pool --users 20 --count 5": """\
        100 right answers over 10 connections
        three users gave up: 7 connections left
        after the server closed one: STILL HERE
        under load again: 10 connections""",
    "event_bus --count 50": """\
        100 events audited, total=1225, as expected: True
        1 failures, the first: payment 0
        1 failures when it has unsubscribed""",
    "async_pipeline --count 2050": """\
        21 batches, sum is right: True; lines: closed
        stopped early with [0, 1, 2, 3, 4]; lines: closed
        server: the client has gone
        {8: 64, 6: 36, 4: 16, 2: 4, 0: 0}""",
    "context_managers --count 5": """\
        hello hello
        cluster stops, disconnected, two stopped, disconnected, one stopped
        port 0: two stopped, disconnected, one stopped
        cancelled=True: cluster stops, disconnected, one stopped
        5 clusters came and went, 35 steps""",
    "task_groups --count 20": """\
        all: [0, 1, 2, 3, 4]
        failures: -1 is negative -2 is negative
        first: 2
        in time: [1, 4]
        wait_for: too late
        moves: 7
        cancelled=True: saving saved
        tasks left: 0""",
    "http_fetch --count 50": """\
        50 pages, d641cf7ef8569168
        /nothing: 404 no error
        /hang: 200 TimeoutError
        /break: 200 ClientPayloadError
        /size/5000000: 200 TooLarge
        nobody there: 0 ClientConnectorError""",
    "http_fetch --count 50 --client httpx": """\
        50 pages, d641cf7ef8569168
        /nothing: 404 no error
        /hang: 200 TimeoutError
        /break: 200 RemoteProtocolError
        /size/5000000: 200 TooLarge
        nobody there: 0 ConnectError""",
    "crawler --depth 2 --seconds 60": """\
        100 pages, 1177 links, 1 broken: {'HTTPStatusError'}""",
    "micro_batch --count 250": """\
        250 calls, 3 round trips, all right: True
        1000 calls for one key, 1 round trip: {49}
        one is cancelled: 0 CancelledError('') 4
        one is wrong: ValueError('no such number: -1') ValueError('no such number: -1')
        the next batch: 144""",
    "background_tasks --count 1000": """\
        999 done, 1 failed, the first: task 999: work 999
        starts: {'steady': 1, 'shaky': 4}, totals: 4950, 4950
        starts: {'broken': 3}, then: not ready
        tasks left: 0""",
    "graceful_shutdown --count 50 --limit 2": """\
        stopped: 23 requests in flight, 3 cut off
        finished: 20 closed: 8""",
    "cpu_pools --count 300 --end 2000": """\
        303 primes below 2000
        the endless count: cancelled=True
        rounds in a thread: True
        the endless thread: cancelled=True""",
    "subprocess_pipeline --count 10": """\
        came back unchanged: True, statuses [0, 0, 0]
        the first two lines: True, statuses ['SIGPIPE', 0]
        not started: FileNotFoundError
        left early, after b'y\\n'""",
    "file_transfer --count 3 --size 1000000": """\
        3 files of 1000000 bytes up: True, down: True
        files on the server: 3""",
    "udp_service --tasks 10 --count 10": """\
        100 right answers
        100 with 10 datagrams lost, sent again: True, answers too many: True
        the server has gone: no answer to 2 datagrams""",
    "tls_service --clients 5 --count 5": """\
        a client: hello client: 0
        a stranger: refused by the server
        no certificate: refused by the server
        wary: refused by the client: 19
        5 clients, 5 requests each: {'hello client: 4'}""",
    "multi_process --clients 30 --count 10": """\
        300 answers by 2 workers, all ours: True
        after one was killed: 2 workers, all ours: True""",
}
# Tested below, in other files, or because these run everything else.
ELSEWHERE = {
    *("aiohttp_hello", "handover", "measure", "resolver_aiodns", "rest_service"),
    *("run_with", "streams_in_c"),
}


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Python in the checkout, not told of any proxy; ends what is left."""
    env = {key: os.environ[key] for key in os.environ if "proxy" not in key.lower()}
    started: list[subprocess.Popen[str]] = []

    def start_one(*command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-Xfaulthandler", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=env,
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate()


def printed(result: tuple[int, str, str]) -> list[str]:
    """The lines of a script that ended well, and with nothing on stderr."""
    status, out, err = result
    assert status == 0, out + err
    assert SLOW.sub("", err) == "", out
    return out.splitlines()


def needs(example: str) -> list[str]:
    """The packages that an example imports, of those we install to test."""
    source = (ROOT / "examples" / f"{example}.py").read_text()
    return re.findall(r"^(?:from|import) (aiohttp|httpx)\b", source, re.M)


@pytest.mark.slow
@pytest.mark.parametrize("command", EXPECTED)
def test_output(start: Start, command: str) -> None:
    name, *arguments = command.split()
    packages = needs(name)
    for package in packages:
        pytest.importorskip(package)
    if name == "tls_service" and shutil.which("openssl") is None:
        pytest.skip("makes certificates with openssl")
    with_loop = "examples/run_with.py"
    script = f"examples/{name}.py"
    flags = LIBRARIES if packages else []
    runs = PLAIN if name in NOT_DEBUG else RUNS
    processes = [
        start(flag, *flags, with_loop, loop, script, *arguments) for loop, flag in runs
    ]
    results = [finish_script(process, timeout=50) for process in processes]
    expected = [line.strip() for line in EXPECTED[command].splitlines()]
    for run, result in zip(runs, results, strict=True):
        lines = printed(result)
        assert lines[:-1] == expected, run
        assert FIGURE.fullmatch(lines[-1]), run


@pytest.mark.slow
def test_handover(start: Start) -> None:
    process = start("-Xdev", "examples/handover.py", "--count", "200")
    lines = printed(finish_script(process, timeout=50))
    assert lines[:-1] == [
        "the old process answers: True",
        "visits meanwhile, none refused: True",
        "then only the new one answers: True",
        "it has ended: 0",
    ]
    assert FIGURE.fullmatch(lines[-1])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate")
def test_streams_in_c(start: Start) -> None:
    lines = printed(finish_script(start("examples/streams_in_c.py")))
    plain, tls = lines
    assert plain.startswith("plain: ") and tls.startswith("over TLS: ")
    assert plain.endswith(" with hotloop's") and tls.endswith(" with hotloop's")


def test_every_example_is_tested_and_described() -> None:
    """A new example comes with a test and with a line in the README."""
    folder = ROOT / "examples"
    tested = {command.split()[0] for command in EXPECTED}
    names = {path.stem for path in folder.glob("*.py")}
    assert names == tested | ELSEWHERE
    readme = (folder / "README.md").read_text()
    assert not [name for name in sorted(names) if f"{name}.py" not in readme]


@pytest.mark.parametrize("arguments", [["nothing", "x.py"], ["asyncio", "none.py"]])
def test_run_with_refuses(start: Start, arguments: list[str]) -> None:
    status, out, err = finish_script(start("examples/run_with.py", *arguments))
    assert (status, out) == (1, "")
    assert err.startswith("run_with.py: ") and err.count("\n") == 1


def test_run_with_passes_arguments_and_pickles(start: Start, tmp_path: Any) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, pickle, sys\n"
        "def function(): pass\n"
        "async def main():\n"
        "    loop = type(asyncio.get_running_loop()).__module__.split('.')[0]\n"
        "    print(loop, sys.argv[1:], pickle.loads(pickle.dumps(function)).__name__)\n"
    )
    for loop in ("asyncio", "hotloop"):
        process = start("examples/run_with.py", loop, str(program), "-a", "b")
        assert printed(finish_script(process)) == [f"{loop} ['-a', 'b'] function"]


@pytest.fixture
def serving(start: Start) -> Callable[..., tuple[Any, tuple[str, int]]]:
    """Starts an example that serves; returns its process and where."""

    def serve(name: str, loop: str, *arguments: str) -> tuple[Any, tuple[str, int]]:
        script = f"examples/{name}.py"
        process = start(
            *("-Wdefault", *LIBRARIES, "examples/run_with.py", loop, script),
            *("--serve", "127.0.0.1:0", *arguments),
        )
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert words[:2] == ["serving", "on"], words
        return process, (words[2], int(words[3]))

    return serve


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_graceful_shutdown(serving: Any, loop_kind: str, number: int) -> None:
    process, address = serving("graceful_shutdown", loop_kind, "--limit", "30")
    with (
        socket.create_connection(address, 30) as busy,
        socket.create_connection(address, 30) as idle,
        busy.makefile("rb") as answers,
    ):
        busy.sendall(b"poll\n")
        assert answers.readline() == b"begun\n"
        process.send_signal(number)
        assert idle.recv(1) == b""
        assert answers.read() == b"done\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 30)
    assert printed(finish_script(process)) == [
        "stopped: 1 requests in flight, 0 cut off"
    ]


def test_graceful_shutdown_cuts_off(serving: Any, loop_kind: str) -> None:
    process, address = serving("graceful_shutdown", loop_kind, "--limit", "0.05")
    with socket.create_connection(address, 30) as sock:
        sock.sendall(b"hang\n")
        assert sock.recv(100) == b"begun\n"
        process.send_signal(signal.SIGTERM)
        assert sock.recv(100) == b""
    assert printed(finish_script(process)) == [
        "stopped: 1 requests in flight, 1 cut off"
    ]


def test_second_signal_ends_at_once(serving: Any, loop_kind: str) -> None:
    process, address = serving("graceful_shutdown", loop_kind, "--limit", "3600")
    with (
        socket.create_connection(address, 30) as busy,
        socket.create_connection(address, 30) as idle,
    ):
        busy.sendall(b"hang\n")
        assert busy.recv(100) == b"begun\n"
        process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b""  # the first one has been seen
        process.send_signal(signal.SIGTERM)
        status, out, err = finish_script(process)
    assert (status, out, err) == (-signal.SIGTERM, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_multi_process_ends_its_workers(
    serving: Any, loop_kind: str, number: int
) -> None:
    process, address = serving("multi_process", loop_kind)
    pids: set[int] = set()
    while len(pids) < 2:
        with socket.create_connection(address, 30) as sock:
            sock.sendall(b"who?\n")
            pids.add(int(sock.recv(100)))
    process.send_signal(number)
    # The workers have its output open as well: it ends with the last of them.
    status, out, err = finish_script(process)
    assert status == (-number if number == signal.SIGKILL else 0)
    assert (out, err) == ("", "")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 30)


SERVERS = ["echo_protocol", "echo_buffered", "chat_server", "file_transfer"]
SERVERS += ["udp_service", "websocket_broadcast"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_ctrl_c_ends_a_server(serving: Any, name: str) -> None:
    for package in needs(name):
        pytest.importorskip(package)
    for loop in ("asyncio", "hotloop"):
        process, _ = serving(name, loop)
        process.send_signal(signal.SIGINT)
        assert printed(finish_script(process)) == []
