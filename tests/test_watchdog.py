"""The watchdog: who blocks the loop is reported while it does."""

from __future__ import annotations

import asyncio
import ctypes
import json
import textwrap
import threading
import time
import weakref
from typing import Any

import pytest

import hotloop
from hotloop import BlockedCallback
from support import PY, collect, run_script, wanted_kinds

pytestmark = pytest.mark.skipif("hotloop" not in wanted_kinds(), reason="hotloop's own")

# Far beyond what any machine takes to notice: waiting for what does not come.
LONG = 30
LIMIT = 0.02

# Functions of C that keep the GIL while they run.
with_gil = ctypes.PyDLL(None)


@pytest.fixture
def loop_kind() -> str:
    return "hotloop"  # asyncio's loops have none of this


class Reports:
    """What a watchdog reported, in its thread; wait() is for the callback."""

    def __init__(self) -> None:
        self.seen: list[BlockedCallback] = []
        self.names: list[str] = []
        self.came = threading.Condition()

    def __call__(self, blocked: BlockedCallback) -> None:
        with self.came:
            self.seen.append(blocked)
            self.names.append(threading.current_thread().name)
            self.came.notify_all()

    def wait(self, count: int = 1) -> None:
        """Block until so many reports came."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.seen) >= count, LONG)


def run(loop: Any, *callbacks: Any) -> None:
    for callback in callbacks:
        loop.call_soon(callback)
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_a_callback_is_reported_while_it_blocks(loop: Any) -> None:
    found = Reports()

    def inner() -> None:
        found.wait()

    def outer() -> None:
        inner()

    loop.enable_watchdog(LIMIT, found)
    run(loop, outer)
    (blocked,) = found.seen
    assert found.names == ["hotloop-watchdog"]
    assert blocked.loop is loop
    assert "outer()" in blocked.callback
    assert blocked.callback.startswith("<Handle ")
    assert blocked.seconds >= blocked.limit == LIMIT
    assert blocked.thread_id == threading.get_ident()
    assert blocked.thread_name == threading.current_thread().name
    assert not blocked.ended
    names = [frame.name for frame in blocked.stack]
    assert names[:3] == ["outer", "inner", "wait"]
    assert loop.metrics().blocked == 1


def test_a_task_is_reported_with_its_coroutines(loop: Any) -> None:
    found = Reports()

    async def child() -> None:
        found.wait()

    async def parent() -> None:
        await asyncio.sleep(0)
        await child()

    loop.enable_watchdog(LIMIT, found)
    loop.run_until_complete(loop.create_task(parent(), name="the parent"))
    (blocked,) = found.seen
    assert "the parent" in blocked.callback
    assert [frame.name for frame in blocked.stack][:3] == ["parent", "child", "wait"]


def test_a_protocol_is_reported(loop: Any) -> None:
    found = Reports()

    class Slow(asyncio.Protocol):
        """Takes its time over what it gets."""

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            found.wait()
            self.transport.close()

    async def main() -> None:
        server = await loop.create_server(Slow, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"something")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    loop.enable_watchdog(LIMIT, found)
    loop.run_until_complete(main())
    (blocked,) = found.seen
    assert blocked.callback.startswith("<SocketTransport fd=")
    assert blocked.stack[0].name == "data_received"


def test_one_report_for_each_blocked_callback(loop: Any) -> None:
    found = Reports()
    loop.enable_watchdog(LIMIT, found)

    def first() -> None:
        found.wait(1)
        time.sleep(10 * LIMIT)  # no second report for the same

    def second() -> None:
        found.wait(2)

    run(loop, first, second)
    assert ["first" in b.callback for b in found.seen] == [True, False]
    assert loop.metrics().blocked == 2


def test_many_short_callbacks_are_none(loop: Any) -> None:
    found = Reports()
    loop.enable_watchdog(0.1, found)
    end = time.monotonic() + 0.3

    def again() -> None:
        if time.monotonic() < end:
            loop.call_soon(again)

    run(loop, again)
    assert found.seen == []


def test_a_loop_that_waits_is_not_blocked(loop: Any) -> None:
    found = Reports()
    loop.enable_watchdog(0.005, found)
    for _ in range(20):
        loop.call_later(0.02, loop.stop)
        loop.run_forever()
        time.sleep(0.02)  # nor is one that does not run
    # On a busy machine a callback may take that long now and then.
    assert len(found.seen) < 10


def test_code_in_c_that_keeps_the_gil(loop: Any) -> None:
    found = Reports()

    def hog() -> None:
        with_gil.usleep(900_000)
        found.wait()

    loop.enable_watchdog(LIMIT, found)
    run(loop, hog)
    (blocked,) = found.seen
    assert blocked.stack[0].name == "hog"
    assert not blocked.ended
    assert blocked.gil_wait > 0.05
    assert "seconds for the GIL" in str(blocked)


def test_a_callback_in_c_is_reported_when_it_has_ended(loop: Any) -> None:
    found = Reports()
    loop.enable_watchdog(LIMIT, found)
    loop.call_soon(with_gil.usleep, 900_000)
    run(loop)
    (blocked,) = found.seen
    assert blocked.ended
    assert len(blocked.stack) == 0
    assert blocked.seconds > 0.5
    assert "usleep" in blocked.callback
    assert "blocked the loop in thread" in str(blocked)
    assert "Stack" not in str(blocked)


def test_the_default_is_to_log(loop: Any, log: Any) -> None:
    def sleep_until_logged() -> None:
        while not log:
            time.sleep(0.001)

    loop.enable_watchdog(LIMIT)
    run(loop, sleep_until_logged)
    text = log.one()
    assert "has blocked the loop in thread MainThread for 0." in text
    assert f"(limit {LIMIT})" in text
    assert "Stack (most recent call last):" in text
    assert "time.sleep(0.001)" in text
    assert "run_forever" not in text


def test_json(loop: Any) -> None:
    found = Reports()
    loop.enable_watchdog(LIMIT, found)
    run(loop, found.wait)
    values = json.loads(json.dumps(found.seen[0].as_dict()))
    assert values["ended"] is False
    assert "found.wait" not in values["callback"]
    assert any("wait_for" in line for line in values["stack"])


def test_a_report_that_raises(loop: Any, unraisable: Any) -> None:
    def fail(blocked: BlockedCallback) -> None:
        raise ZeroDivisionError("of the report")

    def wait() -> None:
        while not unraisable:
            time.sleep(0.001)

    loop.enable_watchdog(LIMIT, fail)
    run(loop, wait)
    assert unraisable.one() == "ZeroDivisionError: of the report"


def test_a_report_of_what_has_ended_that_raises(loop: Any, unraisable: Any) -> None:
    def fail(blocked: BlockedCallback) -> None:
        raise ZeroDivisionError("of the report")

    def leave(blocked: BlockedCallback) -> None:
        raise KeyboardInterrupt

    loop.enable_watchdog(LIMIT, fail)
    loop.call_soon(with_gil.usleep, 900_000)
    run(loop)
    assert unraisable.one() == "ZeroDivisionError: of the report"
    loop.enable_watchdog(LIMIT, leave)
    loop.call_soon(with_gil.usleep, 900_000)
    with pytest.raises(KeyboardInterrupt):
        run(loop)
    loop.run_forever()  # until the stop() that was left


def test_a_callback_whose_repr_fails(loop: Any) -> None:
    class Callback:
        """Does not want to be shown."""

        def __repr__(self) -> str:
            raise ZeroDivisionError

        def __call__(self) -> None:
            found.wait()

    found = Reports()
    loop.enable_watchdog(LIMIT, found)
    run(loop, Callback())
    assert "whose repr() raised ZeroDivisionError()" in found.seen[0].callback


def test_a_turn_inside_of_a_callback(loop: Any) -> None:
    found = Reports()

    def inner() -> None:
        found.wait(1)

    def outer() -> None:
        loop.call_soon(inner)
        loop._run_once()
        found.wait(2)

    loop.enable_watchdog(LIMIT, found)
    loop.call_soon(outer)
    loop.run_until_complete(asyncio.sleep(0, loop))
    assert ["inner" in b.callback for b in found.seen] == [True, False]
    assert "outer" in found.seen[1].callback


def test_debug_mode_and_profile_as_well(loop: Any, log: Any) -> None:
    found = Reports()
    loop.set_debug(True)
    loop.enable_metrics(profile=True)
    loop.enable_watchdog(LIMIT, found)
    run(loop, found.wait)
    assert len(found.seen) == 1
    assert loop.profile()[0].name == "Reports.wait"
    log.take()  # that it was slow


def test_off_again(loop: Any) -> None:
    found = Reports()
    loop.enable_watchdog(LIMIT, found)
    loop.enable_watchdog(None)
    loop.enable_watchdog(None)
    run(loop, lambda: time.sleep(5 * LIMIT))
    assert found.seen == []


def test_another_one_replaces_it(loop: Any) -> None:
    first, second = Reports(), Reports()
    loop.enable_watchdog(LIMIT, first)
    loop.enable_watchdog(LIMIT, second)
    run(loop, second.wait)
    assert first.seen == [] and len(second.seen) == 1


def test_from_within_the_callback(loop: Any) -> None:
    found = Reports()

    def begin() -> None:
        loop.enable_watchdog(LIMIT, found)
        found.wait()
        loop.enable_watchdog(None)

    run(loop, begin)
    assert found.seen[0].callback == "A callback"
    assert found.seen[0].stack[0].name == "begin"


def test_the_report_ends_the_watch(loop: Any) -> None:
    ended = threading.Event()

    def report(blocked: BlockedCallback) -> None:
        blocked.loop.enable_watchdog(None)  # type: ignore[attr-defined]
        ended.set()

    loop.enable_watchdog(LIMIT, report)
    run(loop, lambda: ended.wait(LONG), lambda: time.sleep(5 * LIMIT))
    assert loop.metrics().blocked == 1


def test_the_loop_is_closed_while_a_report_is_made() -> None:
    begun, goes_on, ended = (threading.Event() for _ in range(3))

    def report(blocked: BlockedCallback) -> None:
        begun.set()
        assert goes_on.wait(LONG)
        ended.set()

    loop = hotloop.new_event_loop()
    loop.enable_watchdog(LIMIT, report)
    run(loop, lambda: begun.wait(LONG))
    loop.close()
    dead = weakref.ref(loop)
    del loop
    goes_on.set()
    assert ended.wait(LONG)
    deadline = time.monotonic() + LONG
    while dead() is not None and time.monotonic() < deadline:
        time.sleep(0.001)
        collect()
    assert dead() is None


def test_several_loops_in_several_threads() -> None:
    found = [Reports() for _ in range(4)]
    loops = [hotloop.new_event_loop() for _ in found]

    def work(loop: Any, reports: Reports) -> None:
        loop.enable_watchdog(LIMIT, reports)
        run(loop, reports.wait)
        loop.close()

    threads = [
        threading.Thread(target=work, args=pair, name=f"number {number}")
        for number, pair in enumerate(zip(loops, found, strict=True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for loop, thread, reports in zip(loops, threads, found, strict=True):
        (blocked,) = reports.seen
        assert blocked.loop is loop
        assert (blocked.thread_id, blocked.thread_name) == (thread.ident, thread.name)
        assert blocked.stack[0].name == "wait"


def test_no_thread_of_python_is_left(loop: Any) -> None:
    before = threading.enumerate()
    found = Reports()
    loop.enable_watchdog(LIMIT, found)
    assert threading.enumerate() == before
    run(loop, found.wait)
    deadline = time.monotonic() + LONG
    while threading.enumerate() != before and time.monotonic() < deadline:
        time.sleep(0.001)
    assert threading.enumerate() == before


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_limits_that_are_none(loop: Any, limit: float) -> None:
    with pytest.raises(ValueError, match="the limit is a number of seconds above 0"):
        loop.enable_watchdog(limit)


def test_what_is_refused(loop: Any) -> None:
    with pytest.raises(TypeError, match="a callable or None is expected"):
        loop.enable_watchdog(1, report=3)
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.enable_watchdog(1)
    loop.enable_watchdog(None)


# ---- whole processes ----

PRELUDE = """
import asyncio, ctypes, hotloop, os, sys, threading, time
reported = threading.Event()
def report(blocked):
    reported.set()
"""


def test_what_is_said_while_the_gil_is_kept() -> None:
    script = """
    loop = hotloop.new_event_loop()
    loop.enable_watchdog(0.1)
    loop.call_soon(ctypes.PyDLL(None).usleep, 1_900_000)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    """
    _, err = script_of(script)
    first, second = err.splitlines()[:2]
    assert first.startswith("hotloop: a callback has blocked the loop for 1.")
    assert "usleep" in second and "blocked the loop" in second


def script_of(body: str, code: int = 0) -> tuple[str, str]:
    script = PRELUDE + textwrap.dedent(body)
    return run_script("hotloop", script, code=code, quiet=False, prelude=False)


EXITS = {
    "a loop that nobody closed": """
        loop = hotloop.new_event_loop()
        loop.enable_watchdog(0.01, report)
        """,
    "from within a blocked callback": """
        async def main():
            reported.wait()
            sys.exit()
        loop = hotloop.new_event_loop()
        loop.enable_watchdog(0.01, report)
        loop.run_until_complete(main())
        """,
    "a report that never ends": """
        def report(blocked):
            reported.set()
            time.sleep(3600)
        loop = hotloop.new_event_loop()
        loop.enable_watchdog(0.01, report)
        loop.call_soon(reported.wait)
        loop.call_soon(loop.stop)
        loop.run_forever()
        """,
    "a daemon thread that blocks for ever": """
        def work():
            loop = hotloop.new_event_loop()
            loop.enable_watchdog(0.01, report)
            loop.call_soon(time.sleep, 3600)
            loop.run_forever()
        threading.Thread(target=work, daemon=True).start()
        reported.wait()
        """,
}


@pytest.mark.parametrize("name", EXITS)
def test_exit(name: str) -> None:
    out, err = script_of(textwrap.dedent(EXITS[name]) + "print('end', flush=True)")
    assert "Fatal" not in err
    assert out == ("" if "sys.exit" in EXITS[name] else "end\n")


def test_to_begin_when_all_is_over() -> None:
    _, err = run_script(
        "hotloop",
        """
import atexit

@atexit.register
def late():
    try:
        loop.enable_watchdog(0.01)
    except RuntimeError as exc:
        print(exc, file=sys.stderr)

import hotloop, sys  # whose own function is called before
loop = hotloop.new_event_loop()
""",
        quiet=False,
        prelude=False,
    )
    assert "can't start a watchdog at interpreter shutdown" in err


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_none() -> None:
    out, err = script_of(
        """
        import warnings
        warnings.simplefilter("ignore")
        def fork():
            reported.wait()
            pid = os.fork()
            if pid == 0:
                reported.clear()
                time.sleep(0.2)  # nobody looks
                print("child", reported.is_set(), flush=True)
                loop.enable_watchdog(0.01, report)
                reported.wait(30)
                print("child", reported.is_set(), flush=True)
                loop.stop()
                return
            print("parent", os.waitpid(pid, 0)[1], flush=True)
            loop.stop()
        loop = hotloop.new_event_loop()
        loop.enable_watchdog(0.01, report)
        loop.call_soon(fork)
        loop.run_forever()
        loop.close()
        """
    )
    assert out == "child False\nchild True\nparent 0\n", err


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTLOOP_WATCHDOG", "0.01")
    _, err = script_of(
        """
        import logging
        class Handler(logging.Handler):
            def emit(self, record):
                print(record.getMessage().splitlines()[-2:], file=sys.stderr)
                reported.set()
        logging.getLogger("asyncio").addHandler(Handler())
        async def main():
            reported.wait(30)
        asyncio.Runner(loop_factory=hotloop.new_event_loop).run(main())
        """
    )
    assert "reported.wait" in err or "waiter.acquire" in err
    monkeypatch.setenv("HOTLOOP_WATCHDOG", "soon")
    with pytest.raises(ValueError, match="HOTLOOP_WATCHDOG is to be a number of sec"):
        hotloop.new_event_loop()


@pytest.mark.skipif(PY < (3, 13), reason="asyncio itself crashes there in 3.12")
def test_a_subinterpreter_that_ends() -> None:
    code = """
    import hotloop, threading
    reported = threading.Event()
    loop = hotloop.new_event_loop()
    loop.enable_watchdog(0.01, lambda blocked: reported.set())
    loop.call_soon(reported.wait)
    loop.call_soon(loop.stop)
    loop.run_forever()
    print(reported.is_set(), flush=True)
    """
    script = (
        "import _interpreters as sub\n"
        "ident = sub.create('legacy')\n"
        f"sub.run_string(ident, {textwrap.dedent(code)!r})\n"
        "sub.destroy(ident)\n"
        "print('end', flush=True)\n"
    )
    out, err = run_script("hotloop", script, quiet=False, prelude=False)
    assert out == "True\nend\n", err
