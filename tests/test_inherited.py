"""What hotloop takes from the standard library: processes, pipes, UDP, DNS."""

# mypy: disable-error-code="misc"

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import os
import signal
import socket
import sys
import threading
import time
import tty
from typing import Any

import pytest

from support import PY, Recorder, run_script, turns, until

PIPE = asyncio.subprocess.PIPE


async def test_exec_and_communicate(loop: Any) -> None:
    code = "import sys; sys.stdout.write(sys.stdin.read().upper())"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate(b"some text")
    assert (out, err, process.returncode) == (b"SOME TEXT", b"", 0)


async def test_large_through_a_process(loop: Any) -> None:
    data = os.urandom(3_000_000)
    process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    out, _ = await process.communicate(data)
    assert out == data


async def test_shell_and_exit_codes(loop: Any) -> None:
    process = await asyncio.create_subprocess_shell("exit 7")
    assert await process.wait() == 7
    process = await asyncio.create_subprocess_shell(
        "echo out; echo err >&2", stdout=PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert out == b"out\nerr\n"


async def test_reading_lines_of_a_process(loop: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        "cat", stdin=PIPE, stdout=PIPE, limit=1000
    )
    assert process.stdin is not None and process.stdout is not None
    for number in range(20):
        process.stdin.write(b"line %d\n" % number)
        await process.stdin.drain()
        assert await process.stdout.readline() == b"line %d\n" % number
    process.stdin.close()
    assert await process.wait() == 0
    assert await process.stdout.read() == b""


@pytest.mark.parametrize("how", ["kill", "terminate", "send_signal"])
async def test_ending_a_process(loop: Any, how: str) -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    if how == "send_signal":
        process.send_signal(signal.SIGHUP)
        wanted = -signal.SIGHUP
    else:
        getattr(process, how)()
        wanted = -signal.SIGKILL if how == "kill" else -signal.SIGTERM
    assert await process.wait() == wanted
    assert process.returncode == wanted


async def test_many_processes_at_once(loop: Any) -> None:
    async def one(number: int) -> int:
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f"exit {number}", stdout=PIPE
        )
        await process.communicate()
        assert process.returncode is not None
        return process.returncode

    assert await asyncio.gather(*(one(n) for n in range(20))) == list(range(20))


async def test_popen_keywords(loop: Any, tmp_path: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        "pwd; echo $VAR; umask",
        stdout=PIPE,
        cwd=tmp_path,
        env={**os.environ, "VAR": "value"},
        umask=0o077,
        start_new_session=True,
        close_fds=True,
    )
    out, _ = await process.communicate()
    assert out.split() == [os.fsencode(tmp_path), b"value", b"0077"]


async def test_program_that_is_not_there(loop: Any) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        await asyncio.create_subprocess_exec("no-such-program")


async def test_waiting_may_be_cancelled(loop: Any) -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.wait(), 0.01)
    process.kill()
    await process.wait()


async def test_process_protocol(loop: Any) -> None:
    class Watch(asyncio.SubprocessProtocol):
        def __init__(self) -> None:
            self.events: list[Any] = []
            self.done = loop.create_future()

        def pipe_data_received(self, fd: int, data: bytes) -> None:
            self.events.append((fd, data))

        def pipe_connection_lost(self, fd: int, exc: Any) -> None:
            self.events.append(fd)

        def process_exited(self) -> None:
            self.events.append("exited")

        def connection_lost(self, exc: Any) -> None:
            self.done.set_result(exc)

    transport, protocol = await loop.subprocess_exec(
        Watch, "sh", "-c", "echo out; echo err >&2; exit 3"
    )
    assert await protocol.done is None
    assert transport.get_returncode() == 3 and transport.get_pid() > 0
    assert (1, b"out\n") in protocol.events and (2, b"err\n") in protocol.events
    assert "exited" in protocol.events
    transport.close()


async def test_executor(loop: Any) -> None:
    main = threading.get_ident()

    def work(a: int, b: int) -> tuple[int, bool]:
        time.sleep(0.002)
        return a + b, threading.get_ident() != main

    assert await loop.run_in_executor(None, work, 1, 2) == (3, True)
    results = await asyncio.gather(*(asyncio.to_thread(work, n, n) for n in range(30)))
    assert results == [(2 * n, True) for n in range(30)]
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(None, lambda: 1 / 0)


async def test_own_executor(loop: Any) -> None:
    with concurrent.futures.ThreadPoolExecutor(1, "mine") as pool:
        name = await loop.run_in_executor(pool, lambda: threading.current_thread().name)
        assert name.startswith("mine")
        loop.set_default_executor(pool)
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        assert name.startswith("mine")
        assert loop._default_executor is pool
    with pytest.raises(TypeError, match="must be ThreadPoolExecutor"):
        loop.set_default_executor("pool")


async def test_executor_cancel(loop: Any) -> None:
    release = threading.Event()
    future = loop.run_in_executor(None, release.wait, 10)
    await turns(2)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    release.set()


async def test_shutdown_of_the_executor(loop: Any) -> None:
    await loop.run_in_executor(None, int)
    await loop.shutdown_default_executor()
    with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
        loop.run_in_executor(None, int)


@pytest.mark.skipif(PY < (3, 13), reason="3.12 has the timeout and ignores it")
async def test_shutdown_of_the_executor_in_time(loop: Any, no_warnings: Any) -> None:
    release = threading.Event()
    future = loop.run_in_executor(None, release.wait, 10)
    start = loop.time()
    await loop.shutdown_default_executor(timeout=0.05)
    assert loop.time() - start < 5
    found = no_warnings()
    assert any("The executor did not finishing joining" in text for text in found)
    release.set()
    await future


def test_process_pool(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        import concurrent.futures, multiprocessing
        async def main():
            loop = asyncio.get_running_loop()
            context = multiprocessing.get_context("forkserver")
            with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
                jobs = [loop.run_in_executor(pool, pow, 2, n) for n in range(10)]
                print(await asyncio.gather(*jobs))
        run(main())
        """,
    )
    assert out == f"{[2**n for n in range(10)]}\n"


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.lost: list[Any] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Any) -> None:
        self.lost.append(exc)


async def test_udp(loop: Any) -> None:
    server, inbox = await loop.create_datagram_endpoint(
        Datagrams, local_addr=("127.0.0.1", 0)
    )
    address = server.get_extra_info("sockname")
    client, answers = await loop.create_datagram_endpoint(
        Datagrams, remote_addr=address
    )
    assert isinstance(client, asyncio.DatagramTransport) or PY < (3, 12)
    client.sendto(b"question")
    client.sendto(b"x" * 20_000)
    await until(lambda: len(inbox.got) == 2)
    assert inbox.got[0] == (b"question", client.get_extra_info("sockname"))
    assert len(inbox.got[1][0]) == 20_000
    server.sendto(b"answer", inbox.got[0][1])
    await until(lambda: answers.got)
    assert answers.got == [(b"answer", address)]
    for transport, protocol in ((server, inbox), (client, answers)):
        transport.close()
        await until(lambda p=protocol: p.lost)
        assert protocol.lost == [None]


@pytest.mark.skipif(PY < (3, 13), reason="empty datagrams are sent from 3.13 on")
async def test_empty_datagram(loop: Any) -> None:
    server, inbox = await loop.create_datagram_endpoint(
        Datagrams, local_addr=("127.0.0.1", 0)
    )
    client, _ = await loop.create_datagram_endpoint(
        Datagrams, remote_addr=server.get_extra_info("sockname")
    )
    client.sendto(b"")
    await until(lambda: inbox.got)
    assert inbox.got[0][0] == b""
    client.close()
    server.close()
    await turns(3)


async def test_udp_refused(loop: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
    client, protocol = await loop.create_datagram_endpoint(
        Datagrams, remote_addr=address
    )
    client.sendto(b"x")
    await until(lambda: protocol.errors)
    assert isinstance(protocol.errors[0], ConnectionRefusedError)
    client.close()
    await turns(3)


async def test_unix_datagrams(loop: Any, tmp_path: Any) -> None:
    path = str(tmp_path / "d")
    server, inbox = await loop.create_datagram_endpoint(
        Datagrams, local_addr=path, family=socket.AF_UNIX
    )
    client, _ = await loop.create_datagram_endpoint(
        Datagrams, remote_addr=path, family=socket.AF_UNIX
    )
    client.sendto(b"local")
    await until(lambda: inbox.got)
    assert inbox.got[0][0] == b"local"
    client.close()
    server.close()
    await turns(3)


async def test_pipes(loop: Any) -> None:
    reading, writing = os.pipe()
    writer, _ = await loop.connect_write_pipe(
        asyncio.BaseProtocol, io.FileIO(writing, "w")
    )
    reader, protocol = await loop.connect_read_pipe(Recorder, io.FileIO(reading, "r"))
    data = os.urandom(500_000)
    writer.write(data)
    writer.write(b"end")
    await until(lambda: len(protocol.data) == len(data) + 3)
    assert protocol.data == data + b"end"
    assert writer.get_extra_info("pipe") is not None
    reader.pause_reading()
    writer.write(b"paused")
    await asyncio.sleep(0.005)
    assert len(protocol.data) == len(data) + 3
    reader.resume_reading()
    writer.close()
    await protocol.closed
    assert protocol.data.endswith(b"paused")


async def test_pipe_whose_reader_left(loop: Any) -> None:
    reading, writing = os.pipe()
    lost = loop.create_future()

    class Watch(asyncio.BaseProtocol):
        def connection_lost(self, exc: Any) -> None:
            lost.set_result(exc)

    transport, _ = await loop.connect_write_pipe(Watch, io.FileIO(writing, "w"))
    os.close(reading)
    error = await lost
    assert error is None or isinstance(error, BrokenPipeError)
    assert transport.is_closing()


async def test_regular_file_is_no_pipe(loop: Any, tmp_path: Any) -> None:
    with open(tmp_path / "file", "w+b") as file:
        with pytest.raises(ValueError, match="Pipe transport is"):
            await loop.connect_read_pipe(asyncio.Protocol, file)
        with pytest.raises(ValueError, match="Pipe transport is only for"):
            await loop.connect_write_pipe(asyncio.BaseProtocol, file)


async def test_pty(loop: Any) -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    reader, protocol = await loop.connect_read_pipe(Recorder, io.FileIO(master, "r"))
    os.write(slave, b"typed")
    await until(lambda: protocol.data == b"typed")
    reader.close()
    await protocol.closed
    os.close(slave)


async def test_socket_calls(loop: Any) -> None:
    with socket.socket() as listener:
        listener.setblocking(False)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.socket()
        client.setblocking(False)
        accepting = asyncio.create_task(loop.sock_accept(listener))
        await loop.sock_connect(client, listener.getsockname())
        server, address = await accepting
    assert address == client.getsockname()
    receiving = asyncio.create_task(loop.sock_recv(server, 100))
    await turns(2)
    await loop.sock_sendall(client, b"hello")
    assert await receiving == b"hello"
    buffer = bytearray(10)
    await loop.sock_sendall(client, memoryview(b"into"))
    assert await loop.sock_recv_into(server, buffer) == 4
    assert buffer[:4] == b"into"
    data = os.urandom(3_000_000)
    sending = asyncio.create_task(loop.sock_sendall(client, data))
    got = bytearray()
    while len(got) < len(data):
        got += await loop.sock_recv(server, 1 << 20)
    await sending
    assert got == data
    client.close()
    assert await loop.sock_recv(server, 10) == b""
    server.close()


async def test_socket_calls_for_datagrams(loop: Any) -> None:
    first = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    second = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for sock in (first, second):
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
    receiving = asyncio.create_task(loop.sock_recvfrom(second, 100))
    await turns(2)
    assert await loop.sock_sendto(first, b"dgram", second.getsockname()) == 5
    assert await receiving == (b"dgram", first.getsockname())
    buffer = bytearray(10)
    await loop.sock_sendto(first, b"into", second.getsockname())
    size, _ = await loop.sock_recvfrom_into(second, buffer)
    assert buffer[:size] == b"into"
    first.close()
    second.close()


async def test_socket_calls_may_be_cancelled(loop: Any) -> None:
    left, right = socket.socketpair()
    left.setblocking(False)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(loop.sock_recv(left, 10), 0.005)
    await turns(2)
    assert loop.remove_reader(left) is False
    right.send(b"x")
    assert await loop.sock_recv(left, 10) == b"x"
    left.close()
    right.close()


async def test_blocking_socket_is_refused_in_debug_mode(loop: Any) -> None:
    loop.set_debug(True)
    with socket.socket() as sock:
        with pytest.raises(ValueError, match="the socket must be non-blocking"):
            await loop.sock_recv(sock, 1)
        with pytest.raises(ValueError, match="the socket must be non-blocking"):
            await loop.sock_connect(sock, ("127.0.0.1", 1))


async def test_names(loop: Any) -> None:
    infos = await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert infos[0][4] == ("127.0.0.1", 80)
    infos = await loop.getaddrinfo("localhost", 80, family=socket.AF_INET)
    assert ("127.0.0.1", 80) in [info[4] for info in infos]
    host, port = await loop.getnameinfo(
        ("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    )
    assert (host, port) == ("127.0.0.1", "80")
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo("no such name", 80, flags=socket.AI_NUMERICHOST)


async def test_sock_sendfile(loop: Any, tmp_path: Any) -> None:
    data = os.urandom(1_000_000)
    (tmp_path / "file").write_bytes(data)
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    with open(tmp_path / "file", "rb") as file:
        sending = asyncio.create_task(loop.sock_sendfile(left, file, 10, 900_000))
        got = bytearray()
        while len(got) < 900_000:
            got += await loop.sock_recv(right, 1 << 20)
        assert await sending == 900_000
    assert got == data[10:900_010]
    left.close()
    right.close()
