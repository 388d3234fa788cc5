"""Signal handlers of the loop, Python's own handlers, and Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import textwrap
import threading
import time
from typing import Any

import pytest

from support import PY, finish_script, run_script, start_script, turns, until


def nothing(*args: Any) -> None:
    """A callback that must never run."""
    raise AssertionError(args)


async def test_handler_runs_with_arguments(loop: Any) -> None:
    seen: list[Any] = []
    loop.add_signal_handler(signal.SIGUSR1, lambda *a: seen.append(a), 1, 2)
    os.kill(os.getpid(), signal.SIGUSR1)
    await until(lambda: seen)
    assert seen == [(1, 2)]
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


async def test_handler_runs_in_the_loop(loop: Any) -> None:
    seen: list[Any] = []
    loop.add_signal_handler(
        signal.SIGUSR1, lambda: seen.append(asyncio.get_running_loop())
    )
    signal.raise_signal(signal.SIGUSR1)
    assert seen == []
    await until(lambda: seen)
    assert seen == [loop]
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_several_signals_and_replacement(loop: Any) -> None:
    seen: list[str] = []
    loop.add_signal_handler(signal.SIGUSR1, nothing)
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "usr1")
    loop.add_signal_handler(signal.SIGUSR2, seen.append, "usr2")
    loop.add_signal_handler(signal.SIGHUP, seen.append, "hup")
    for number in (signal.SIGUSR2, signal.SIGHUP, signal.SIGUSR1):
        signal.raise_signal(number)
    await until(lambda: len(seen) == 3)
    assert sorted(seen) == ["hup", "usr1", "usr2"]
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        assert loop.remove_signal_handler(number) is True


def test_signal_from_a_thread_wakes_a_parked_loop(loop: Any) -> None:
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    timer = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1])
    timer.start()
    loop.run_forever()
    timer.join()
    assert loop.remove_signal_handler(signal.SIGUSR1) is True


def test_signal_before_the_loop_runs(loop: Any) -> None:
    seen: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    signal.raise_signal(signal.SIGUSR1)
    loop.run_until_complete(until(lambda: seen))
    assert seen == [1]
    assert loop.remove_signal_handler(signal.SIGUSR1) is True


def test_removed_while_not_running(loop: Any) -> None:
    loop.add_signal_handler(signal.SIGUSR1, nothing)
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_close_removes_handlers(new_loop: Any) -> None:
    loop = new_loop()
    loop.add_signal_handler(signal.SIGUSR1, nothing)
    loop.add_signal_handler(signal.SIGINT, nothing)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1


def test_no_wakeup_descriptor_is_left_behind(loop: Any) -> None:
    loop.run_until_complete(turns(2))
    assert signal.set_wakeup_fd(-1) == -1


def test_the_programs_wakeup_descriptor_is_closed_meanwhile(loop: Any) -> None:
    left, right = socket.socketpair()
    left.setblocking(False)
    signal.set_wakeup_fd(left.fileno())

    async def main() -> str:
        left.close()
        right.close()
        await turns(2)
        return "over"

    try:
        assert loop.run_until_complete(main()) == "over"
        assert not loop.is_running()
    finally:
        signal.set_wakeup_fd(-1)


async def test_sigchld_may_be_handled(loop: Any) -> None:
    seen: list[int] = []
    loop.add_signal_handler(signal.SIGCHLD, seen.append, 1)
    child = os.posix_spawn("/bin/true", ["true"], os.environ)
    await until(lambda: seen)
    os.waitpid(child, 0)
    assert loop.remove_signal_handler(signal.SIGCHLD) is True


async def test_bad_signals(loop: Any) -> None:
    with pytest.raises(TypeError, match="sig must be an int, not 'x'"):
        loop.add_signal_handler("x", nothing)
    with pytest.raises(ValueError, match="invalid signal number 5000"):
        loop.add_signal_handler(5000, nothing)
    with pytest.raises(RuntimeError, match="sig 9 cannot be caught"):
        loop.add_signal_handler(signal.SIGKILL, nothing)
    with pytest.raises(TypeError):
        loop.remove_signal_handler(None)
    with pytest.raises(ValueError):
        loop.remove_signal_handler(5000)


async def test_coroutines_are_refused(loop: Any) -> None:
    async def handler() -> None:
        raise AssertionError

    message = "coroutines cannot be used with add_signal_handler()"
    with pytest.raises(TypeError) as caught:
        loop.add_signal_handler(signal.SIGUSR1, handler)
    assert str(caught.value) == message
    coro = handler()
    with pytest.raises(TypeError):
        loop.add_signal_handler(signal.SIGUSR1, coro)
    coro.close()


async def test_other_thread_is_refused(loop: Any) -> None:
    def call() -> None:
        loop.add_signal_handler(signal.SIGUSR1, nothing)

    with pytest.raises((ValueError, RuntimeError), match="set_wakeup_fd only works"):
        await asyncio.to_thread(call)


async def test_exception_in_the_handler(loop: Any, reports: Any) -> None:
    loop.add_signal_handler(signal.SIGUSR1, lambda: 1 / 0)
    signal.raise_signal(signal.SIGUSR1)
    await until(lambda: reports)
    report = reports.one()
    assert report["message"].startswith("Exception in callback ")
    assert isinstance(report["exception"], ZeroDivisionError)
    loop.remove_signal_handler(signal.SIGUSR1)


class Rude(Exception):
    """Raised by a Python signal handler."""


@pytest.fixture
def rude_handler() -> Any:
    def handler(number: int, frame: Any) -> None:
        raise Rude

    old = signal.signal(signal.SIGUSR1, handler)
    yield
    signal.signal(signal.SIGUSR1, old)


def test_python_handler_that_raises_while_parked(loop: Any, rude_handler: Any) -> None:
    timer = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1])
    timer.start()
    with pytest.raises(Rude):
        loop.run_forever()
    timer.join()
    loop.run_until_complete(turns(2))


def test_python_handler_runs_while_parked(loop: Any) -> None:
    seen: list[float] = []
    old = signal.signal(signal.SIGUSR1, lambda *_: seen.append(time.monotonic()))
    timer = threading.Timer(0.02, os.kill, [os.getpid(), signal.SIGUSR1])
    timer.start()
    loop.call_later(3, loop.stop)

    async def main() -> None:
        start = time.monotonic()
        task = asyncio.create_task(asyncio.sleep(0.5))
        await task
        assert seen and seen[0] - start < 0.4

    loop.run_until_complete(main())
    timer.join()
    signal.signal(signal.SIGUSR1, old)


def test_python_handler_that_raises_in_a_busy_loop(
    loop: Any, rude_handler: Any, reports: Any
) -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    timer = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1])
    timer.start()
    with pytest.raises(Rude):
        loop.run_until_complete(main())
    timer.join()
    # In a task it ends the task; in the machinery it leaves the task alone.
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(turns(2))


def test_loop_in_a_thread_does_not_take_signals(new_loop: Any) -> None:
    seen: list[str] = []
    old = signal.signal(signal.SIGUSR1, lambda *_: seen.append("main"))
    loop = new_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    os.kill(os.getpid(), signal.SIGUSR1)
    time.sleep(0.01)
    assert seen == ["main"]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    signal.signal(signal.SIGUSR1, old)


INTERRUPTED = """
async def main():
    try:
        print("ready", flush=True)
        {body}
    except asyncio.CancelledError:
        print("cancelled")
        raise
    finally:
        print("finally")

try:
    run(main())
finally:
    print("left", flush=True)
"""

BODIES = {
    "idle": "await asyncio.sleep(60)",
    "future": "await asyncio.get_running_loop().create_future()",
    "busy tasks": """
        while True:
            await asyncio.sleep(0)
    """,
    "busy callbacks": """
        loop = asyncio.get_running_loop()
        def again():
            loop.call_soon(again)
        again()
        await loop.create_future()
    """,
    "network": """
        async def serve(reader, writer):
            while data := await reader.read(1000):
                writer.write(data)
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname())
        while True:
            writer.write(b"x" * 100)
            await reader.readexactly(100)
    """,
}


@pytest.mark.parametrize("name", BODIES)
def test_ctrl_c(loop_kind: str, name: str) -> None:
    body = textwrap.indent(textwrap.dedent(BODIES[name]).strip(), " " * 8).strip()
    process = start_script(loop_kind, INTERRUPTED.format(body=body))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.15)
    process.send_signal(signal.SIGINT)
    code, out, err = finish_script(process)
    assert out.split() == ["cancelled", "finally", "left"], err
    assert code == -signal.SIGINT
    assert "KeyboardInterrupt" in err


def test_ctrl_c_on_a_bare_loop(loop_kind: str) -> None:
    out, _err = run_script(
        loop_kind,
        """
        loop = new_loop()
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("interrupted", loop.is_running())
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        print("closed")
        """,
    )
    assert out.split() == ["interrupted", "False", "closed"]


def test_second_ctrl_c_is_immediate(loop_kind: str) -> None:
    script = """
    async def main():
        try:
            print("ready", flush=True)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("again", flush=True)
            while True:
                time.sleep(0.01)
    run(main())
    """
    process = start_script(loop_kind, script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "again\n"
    process.send_signal(signal.SIGINT)
    code, _out, err = finish_script(process)
    assert code == -signal.SIGINT
    assert "KeyboardInterrupt" in err


def test_interrupt_swallowed_by_the_program(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        async def main():
            threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
            return "result"
        try:
            print(run(main()))
        except KeyboardInterrupt:
            print("interrupted")
        """,
    )
    # asyncio.Runner: a task that ends normally after Ctrl-C has its result.
    assert out == "result\n"


def test_sigterm_handler_ends_a_server(loop_kind: str) -> None:
    script = """
    async def main():
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        print("ready", flush=True)
        async with server:
            await stop.wait()
        print("stopped")
    run(main())
    """
    process = start_script(loop_kind, script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    code, out, err = finish_script(process)
    assert (code, out, err) == (0, "stopped\n", "")


def test_default_sigterm_kills(loop_kind: str) -> None:
    process = start_script(
        loop_kind,
        """
        async def main():
            print("ready", flush=True)
            await asyncio.sleep(60)
        run(main())
        """,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    code, _, _ = finish_script(process)
    assert code == -signal.SIGTERM


def test_flood_of_signals(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        async def main():
            seen = []
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
            def flood():
                for _ in range(20000):
                    os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.to_thread(flood)
            await asyncio.sleep(0.05)
            assert seen
            loop.remove_signal_handler(signal.SIGUSR1)
            print("done")
        run(main())
        """,
        quiet=False,
    )
    assert out == "done\n"


if PY >= (3, 12):

    def test_interrupt_through_asyncio_run(loop_kind: str) -> None:
        process = start_script(
            loop_kind,
            """
            async def main():
                print("ready", flush=True)
                await asyncio.sleep(60)
            asyncio.run(main(), loop_factory=new_loop)
            """,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        code, _, err = finish_script(process)
        assert code == -signal.SIGINT and "KeyboardInterrupt" in err


def test_ctrl_c_at_the_very_end_of_a_run(
    loop: Any, loop_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loop_kind != "hotloop":
        pytest.skip("of hotloop alone: it gives the wakeup descriptor back")
    real = signal.set_wakeup_fd

    def interrupted(fd: int, **options: Any) -> int:
        if fd == -1:
            monkeypatch.undo()
            raise KeyboardInterrupt
        return real(fd, **options)

    monkeypatch.setattr(signal, "set_wakeup_fd", interrupted)
    loop.call_soon(loop.stop)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert not loop.is_running()
    assert loop.run_until_complete(asyncio.sleep(0, 5)) == 5
