"""Child processes: started, fed, read, killed and waited for."""

# mypy: disable-error-code="misc"

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import signal
import socket
import sys
import textwrap
import threading
from typing import Any

import pytest

from support import PY, run_script, turns, until

PIPE = asyncio.subprocess.PIPE
STDOUT = asyncio.subprocess.STDOUT
DEVNULL = asyncio.subprocess.DEVNULL

BIG = 4 << 20


async def start(*args: Any, **kwargs: Any) -> Any:
    return await asyncio.create_subprocess_exec(*args, **kwargs)


async def python(code: str, **kwargs: Any) -> Any:
    return await start(
        sys.executable, "-S", "-E", "-c", textwrap.dedent(code), **kwargs
    )


async def output(process: Any, data: bytes | None = None) -> bytes:
    out, _ = await process.communicate(data)
    assert process.returncode == 0
    return bytes(out)


async def test_much_data_both_ways(loop: Any) -> None:
    data = os.urandom(BIG)
    process = await start("cat", stdin=PIPE, stdout=PIPE)
    assert await output(process, data) == data


async def test_much_data_on_two_pipes(loop: Any) -> None:
    process = await python(
        """
        import os, threading
        def pour(fd, byte):
            left = 2 << 20
            while left:
                left -= os.write(fd, byte * min(left, 100_000))
        threads = [threading.Thread(target=pour, args=pair)
                   for pair in ((1, b"o"), (2, b"e"))]
        [thread.start() for thread in threads]
        """,
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await process.communicate()
    assert (out, err) == (b"o" * (2 << 20), b"e" * (2 << 20))


async def test_pipes_are_of_the_loop(loop: Any, loop_kind: str) -> None:
    process = await start("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
    kinds = [process._transport.get_pipe_transport(fd) for fd in (0, 1, 2)]
    modules = {type(kind).__module__ for kind in kinds}
    wanted = {"hotloop": "hotloop._core", "asyncio": "asyncio.unix_events"}
    assert modules == {wanted[loop_kind]}
    await process.communicate(b"")


async def test_lines(loop: Any) -> None:
    process = await start("cat", stdin=PIPE, stdout=PIPE)
    for number in range(50):
        process.stdin.write(b"line %d\n" % number)
        await process.stdin.drain()
        assert await process.stdout.readline() == b"line %d\n" % number
    process.stdin.writelines([b"a\n", b"b\n"])
    process.stdin.close()
    assert [line async for line in process.stdout] == [b"a\n", b"b\n"]
    await process.stdin.wait_closed()
    assert await process.wait() == 0


async def test_reader_that_is_slow(loop: Any) -> None:
    """The child waits for a reader; nothing is lost, nothing piles up."""
    process = await start("sh", "-c", "head -c 3000000 /dev/zero", stdout=PIPE)
    await asyncio.sleep(0.1)
    assert len(process.stdout._buffer) <= 64 * 1024 * 2 + 256 * 1024
    assert process.returncode is None
    got = 0
    while chunk := await process.stdout.read(1000_000):
        got += len(chunk)
        await asyncio.sleep(0.001)
    assert got == 3_000_000
    assert await process.wait() == 0


async def test_output_that_nobody_reads(loop: Any) -> None:
    process = await start("sh", "-c", "cat /dev/zero", stdout=PIPE)
    await asyncio.sleep(0.05)
    process._transport.close()
    assert await process.wait() == -signal.SIGKILL


early = pytest.mark.skipif(
    sys.version_info < (3, 11, 7), reason="early 3.11 itself leaves things behind"
)


@early
async def test_child_that_does_not_read(loop: Any) -> None:
    process = await start("true", stdin=PIPE)
    await process.communicate(b"x" * BIG)
    assert process.returncode == 0
    process = await start("sleep", "60", stdin=PIPE)
    process.stdin.write(b"x" * BIG)
    task = asyncio.ensure_future(process.stdin.drain())
    await asyncio.sleep(0.02)
    assert not task.done()
    process.kill()
    with pytest.raises(ConnectionError):
        await task
    assert await process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("how", "number"),
    [("kill", signal.SIGKILL), ("terminate", signal.SIGTERM), ("send", signal.SIGUSR1)],
)
async def test_ended_by_a_signal(loop: Any, how: str, number: int) -> None:
    process = await start("sleep", "60")
    if how == "send":
        process.send_signal(number)
    else:
        getattr(process, how)()
    assert await process.wait() == -number
    assert await process.wait() == -number
    assert process.returncode == -number


async def test_killed_from_outside(loop: Any) -> None:
    process = await start("sleep", "60", stdout=PIPE)
    os.kill(process.pid, signal.SIGKILL)
    assert await process.communicate() == (b"", None)
    assert process.returncode == -signal.SIGKILL


async def test_stopped_and_continued(loop: Any) -> None:
    process = await start("cat", stdin=PIPE, stdout=PIPE)
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.05)
    assert process.returncode is None
    process.send_signal(signal.SIGCONT)
    assert await output(process, b"on") == b"on"


async def test_cancelled_wait(loop: Any) -> None:
    process = await start("sleep", "60")
    for _ in range(3):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 0.01)
    process.kill()
    assert await process.wait() == -signal.SIGKILL


async def test_cancelled_communicate(loop: Any) -> None:
    process = await start("cat", stdin=PIPE, stdout=PIPE)
    task = asyncio.ensure_future(process.stdout.read())
    await turns(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    task = asyncio.ensure_future(process.communicate(b"x" * 100))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    process.kill()
    await process.wait()


async def test_cancelled_start(loop: Any) -> None:
    for count in range(4):
        task = asyncio.ensure_future(start("sleep", "60", stdin=PIPE, stdout=PIPE))
        await turns(count)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: len(asyncio.all_tasks()) == 1)
    gc.collect()
    await turns(2)


async def test_program_that_cannot_be_run(loop: Any, tmp_path: Any) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(FileNotFoundError) as info:
        await start(missing, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert info.value.filename == missing
    locked = tmp_path / "locked"
    locked.write_text("#!/bin/sh\n")
    with pytest.raises(PermissionError) as denied:
        await start(str(locked), stdout=PIPE)
    assert denied.value.filename == str(locked)
    with pytest.raises(FileNotFoundError) as info:
        await start("true", cwd=missing)
    assert info.value.filename == missing
    odd = tmp_path / "odd"
    odd.write_bytes(b"\x00\x01\x02")
    odd.chmod(0o755)
    with pytest.raises(OSError) as failed:
        await start(str(odd))
    assert failed.value.errno == errno.ENOEXEC


async def test_keywords(loop: Any, tmp_path: Any) -> None:
    process = await python(
        "import os; print(os.getcwd(), os.environ['A'], os.getsid(0) == os.getpid())",
        stdout=PIPE,
        cwd=tmp_path,
        env={"A": "b"},
        start_new_session=True,
    )
    out = await output(process)
    assert out.decode().split() == [os.path.realpath(tmp_path), "b", "True"]
    process = await python(
        "import os; print(os.getpgrp() == os.getpid(), oct(os.umask(0)))",
        stdout=PIPE,
        process_group=0,
        umask=0o123,
    )
    assert await output(process) == b"True 0o123\n"
    marks: list[int] = []
    process = await start("true", preexec_fn=lambda: marks.append(1))
    assert await process.wait() == 0
    assert marks == []

    def refuse() -> None:
        raise ValueError("no")

    with pytest.raises(Exception, match="preexec_fn"):
        await start("true", preexec_fn=refuse)
    process = await asyncio.create_subprocess_shell(
        "echo $0 $((1 + 2))", stdout=PIPE, executable="/bin/sh"
    )
    assert (await output(process)).endswith(b" 3\n")
    process = await start("echo", b"bytes", tmp_path, stdout=PIPE)
    assert await output(process) == b"bytes " + os.fsencode(tmp_path) + b"\n"
    process = await start("sh", "-c", "echo o; echo e >&2", stdout=PIPE, stderr=STDOUT)
    assert await output(process) == b"o\ne\n"
    process = await start("cat", stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
    assert await output(process) == b""
    for wrong in ({"universal_newlines": True}, {"bufsize": 5}, {"text": True}):
        with pytest.raises(ValueError):
            await start("true", **wrong)


async def test_descriptors_of_the_child(loop: Any, tmp_path: Any) -> None:
    reading, writing = os.pipe()
    left, right = socket.socketpair()
    code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    process = await python(code, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert await output(process) == b"[0, 1, 2, 3]\n"
    process = await python(code, stdout=PIPE, pass_fds=(writing,), stdin=DEVNULL)
    seen = eval(await output(process))
    assert writing in seen and reading not in seen and len(seen) == 5
    with open(tmp_path / "out", "wb") as file:
        process = await start("echo", "to a file", stdout=file)
        assert await process.wait() == 0
    assert (tmp_path / "out").read_bytes() == b"to a file\n"
    process = await start("cat", stdin=left, stdout=left)
    left.close()
    right.sendall(b"socket")
    right.shutdown(socket.SHUT_WR)
    assert await process.wait() == 0
    assert right.recv(100) == b"socket"
    right.close()
    os.close(reading)
    os.close(writing)


async def test_descriptors_left_in_a_grandchild(loop: Any) -> None:
    """The end of the process is not the end of its output."""
    process = await start("sh", "-c", "(sleep 0.2; echo late) &", stdout=PIPE)
    out, _ = await process.communicate()
    assert out == b"late\n"
    assert process.returncode == 0


async def test_many_at_once(loop: Any) -> None:
    async def one(number: int) -> None:
        process = await start("echo", str(number), stdout=PIPE, stderr=PIPE)
        out, err = await process.communicate()
        assert (int(out), err, process.returncode) == (number, b"", 0)

    await asyncio.gather(*[one(number) for number in range(60)])


@pytest.mark.slow
async def test_thousands(loop: Any, loop_kind: str) -> None:
    """One after the other, ten at a time; descriptors and threads stay level."""
    before = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()

    async def some(count: int) -> None:
        for _ in range(count):
            process = await start("/bin/true")
            assert await process.wait() == 0

    count = 2000 if loop_kind == "hotloop" else 200
    await asyncio.gather(*[some(count // 10) for _ in range(10)])
    assert len(os.listdir("/proc/self/fd")) <= before + 5
    assert threading.active_count() <= threads + 10


async def test_no_thread_waits(loop: Any, loop_kind: str) -> None:
    if loop_kind == "asyncio" and PY < (3, 12):
        pytest.skip("asyncio has a thread for each child there")
    before = threading.active_count()
    processes = [await start("sleep", "60") for _ in range(5)]
    assert threading.active_count() == before
    for process in processes:
        process.kill()
        await process.wait()


async def test_without_pidfd(loop: Any, loop_kind: str, monkeypatch: Any) -> None:
    """A kernel that gives none, or a policy that forbids it."""
    if loop_kind == "asyncio" and PY >= (3, 12):
        pytest.skip("asyncio decides once, for good")

    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(errno.EPERM, "forbidden")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    process = await start("cat", stdin=PIPE, stdout=PIPE)
    assert await output(process, b"by a thread") == b"by a thread"
    process = await start("sleep", "60")
    process.kill()
    assert await process.wait() == -signal.SIGKILL
    monkeypatch.delattr(os, "pidfd_open")
    process = await start("true")
    assert await process.wait() == 0


async def test_status_that_another_took(loop: Any, log: Any, loop_kind: str) -> None:
    if loop_kind == "asyncio" and PY < (3, 12):
        pytest.skip("asyncio's thread is quicker")
    process = await start("sleep", "0.2")
    os.waitpid(process.pid, 0)
    assert await process.wait() == 255
    assert "255" in log.one()


async def test_children_ignored(loop: Any, log: Any) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = await start("sleep", "0.05")
        assert await process.wait() == 255
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert "255" in log.one()


async def test_protocol(loop: Any) -> None:
    events: list[str] = []
    done = loop.create_future()

    class Protocol(asyncio.SubprocessProtocol):
        def connection_made(self, transport: Any) -> None:
            events.append("made")

        def pipe_data_received(self, fd: int, data: bytes) -> None:
            events.append(f"{fd} {data!r}")

        def pipe_connection_lost(self, fd: int, exc: Any) -> None:
            events.append(f"{fd} lost")

        def process_exited(self) -> None:
            events.append("exited")

        def connection_lost(self, exc: Any) -> None:
            events.append("lost")
            done.set_result(exc)

    transport, _ = await loop.subprocess_exec(
        Protocol, "cat", stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert transport.get_pid() > 0
    assert transport.get_pipe_transport(3) is None
    assert not transport.is_closing()
    stdin = transport.get_pipe_transport(0)
    stdin.write(b"data")
    await until(lambda: len(events) > 1)
    assert events == ["made", "1 b'data'"]
    stdin.write_eof()
    assert await done is None
    assert events[:2] == ["made", "1 b'data'"]
    assert sorted(events[2:-1]) == ["0 lost", "1 lost", "2 lost", "exited"]
    assert events[-1] == "lost"
    assert transport.get_returncode() == 0
    transport.close()


@early
async def test_out_of_descriptors(loop: Any) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    for spare in range(8):
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, limits[1]))
        try:
            with pytest.raises(OSError) as info:
                await start("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert info.value.errno == errno.EMFILE
    process = await start("true", stdin=PIPE, stdout=PIPE)
    await process.communicate()


async def test_close_ends_the_child(loop: Any) -> None:
    process = await start("sleep", "60", stdin=PIPE, stdout=PIPE)
    process._transport.close()
    assert await process.wait() == -signal.SIGKILL


def test_in_another_thread(new_loop: Any) -> None:
    loop = new_loop()
    found: list[Any] = []

    async def main() -> None:
        process = await start("echo", "thread", stdout=PIPE)
        found.append((await process.communicate())[0])
        found.append(process.returncode)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    thread.join()
    loop.close()
    assert found == [b"thread\n", 0]


def test_loop_closed_before_the_child_ends(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        import warnings
        warnings.simplefilter("ignore")
        sys.unraisablehook = lambda args: None
        async def main():
            return await asyncio.create_subprocess_exec(
                "sleep", "60", stdin=-1, stdout=-1)
        new_loop().close()
        before = len(os.listdir("/proc/self/fd"))
        loop = new_loop()
        process = loop.run_until_complete(main())
        loop.close()
        process.kill()
        del process
        gc.collect()
        left = len(os.listdir("/proc/self/fd")) - before
        print(left if KIND == "hotloop" else 0)
        """,
        quiet=False,
    )
    assert out == "0\n"


@pytest.mark.skipif(PY >= (3, 14), reason="no child watchers from 3.14 on")
@pytest.mark.parametrize("name", ["SafeChildWatcher", "FastChildWatcher", "own"])
def test_watcher_that_the_program_set(loop_kind: str, name: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        import warnings
        warnings.simplefilter("ignore")
        used = []
        class Own(asyncio.ThreadedChildWatcher):
            pass
        base = Own if NAME == "own" else getattr(asyncio, NAME)
        class Watcher(base):
            def add_child_handler(self, *args):
                used.append(args[0])
                super().add_child_handler(*args)
        loop = new_loop()
        asyncio.set_event_loop(loop)
        watcher = Watcher()
        watcher.attach_loop(loop)
        asyncio.set_child_watcher(watcher)
        async def main():
            process = await asyncio.create_subprocess_exec(
                "echo", "watched", stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
            assert used == [process.pid]
            print(out.decode().strip(), process.returncode)
        loop.run_until_complete(main())
        watcher.close()
        loop.close()
        """.replace("NAME", repr(name)),
    )
    assert out == "watched 0\n"


def test_program_is_left_by_interrupt(loop_kind: str) -> None:
    """Ctrl-C while a child runs: the run ends, the child is not left alone."""
    out, _ = run_script(
        loop_kind,
        """
        signal.signal(signal.SIGINT, signal.default_int_handler)
        async def main():
            process = await asyncio.create_subprocess_exec("sleep", "60")
            asyncio.get_running_loop().call_later(
                0.05, os.kill, os.getpid(), signal.SIGINT)
            try:
                await process.wait()
            finally:
                process.kill()
                print(await process.wait())
        try:
            run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """,
    )
    assert out == "-9\ninterrupted\n"
