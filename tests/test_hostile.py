"""Programs and tools that reach into the insides of asyncio: nothing breaks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support import PY, loop_factory, run_script, turns


@pytest.mark.parametrize("how", ["leave", "swap", "pop"])
def test_a_task_that_leaves_the_register_itself(loop_kind: str, how: str) -> None:
    """It may be the last to know the task: nothing of it is used afterwards."""
    if how == "swap" and PY < (3, 12):
        pytest.skip("came with 3.12")
    if how == "pop" and PY >= (3, 14):
        pytest.skip("the register is no dict any more")
    run_script(
        loop_kind,
        f"""
        import gc
        async def leaves():
            loop = asyncio.get_running_loop()
            task = asyncio.current_task()
            if {how!r} == "leave":
                asyncio.tasks._leave_task(loop, task)
            elif {how!r} == "swap":
                asyncio.tasks._swap_current_task(loop, None)
            else:
                asyncio.tasks._current_tasks.pop(loop)

        async def others():
            await asyncio.sleep(0)

        loop = new_loop()
        loop.set_exception_handler(lambda *_: None)
        for _ in range(20):
            loop.create_task(leaves())
            gc.collect()
            for _ in range(3):
                loop.create_task(others())
            try:
                loop.run_until_complete(asyncio.sleep(0.001))
            except RuntimeError:
                pass  # one of ours may end the run, and says why
        for task in asyncio.all_tasks(loop):
            task.cancel()
        try:
            loop.run_until_complete(asyncio.sleep(0))
        except RuntimeError:
            pass
        loop.close()
        """,
        quiet=False,
    )


def test_a_clock_that_fails_in_debug_mode(loop_kind: str) -> None:
    """What an overridden time() raises ends the run, as under asyncio."""
    plain = loop_factory(loop_kind)()
    plain.close()
    base: Any = type(plain)

    class Failing(base):  # type: ignore[misc]
        calls = -1000

        def time(self) -> float:
            self.calls += 1
            if self.calls == 2:
                raise ZeroDivisionError
            return float(super().time())

    loop = Failing()
    loop.set_debug(True)
    loop.call_soon(lambda: None)
    loop.call_soon(loop.stop)
    loop.calls = 0
    with pytest.raises(ZeroDivisionError):
        loop.run_forever()
    loop.close()


def test_tools_that_replace_the_running_of_handles(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those do that time every callback: tasks' steps included."""
    timed: list[Any] = []
    run = asyncio.events.Handle._run

    def timing(self: Any) -> None:
        timed.append(self)
        run(self)

    monkeypatch.setattr(asyncio.events.Handle, "_run", timing)
    loop.call_soon(timed.append, "ran")
    loop.run_until_complete(turns(5))
    assert "ran" in timed
    assert len(timed) >= 8  # one callback, itself, and the steps of the task
    assert all(isinstance(one, asyncio.Handle) for one in timed if one != "ran")


def test_a_repr_that_takes_the_loop_away(loop_kind: str) -> None:
    """In debug mode cancel() asks for it, when the handle may be the last owner."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio asks the loop that is None for its debug mode")
    run_script(
        loop_kind,
        """
        import weakref
        class Callback:
            def __call__(self):
                pass
            def __repr__(self):
                global loop
                if armed:
                    handle._loop = None
                    loop = None
                    gc.collect()
                return "Callback"

        armed = False
        loop = new_loop()
        loop.set_debug(True)
        handle = loop.call_at(1e9, Callback())
        others = [loop.call_at(2e9 + n, len) for n in range(20)]
        loop.close()
        for other in others:
            other._loop = None
        handle._scheduled = True
        armed = True
        gone = weakref.ref(loop)
        handle.cancel()
        assert gone() is None and handle.cancelled()
        """,
        "-Xdev",  # memory that was freed is overwritten
        quiet=False,
    )


def test_a_task_begun_anew_that_waits_for_a_foreign_future(loop_kind: str) -> None:
    """Stepped by hand while its wake-up is queued: it goes on waiting."""
    if PY >= (3, 15):
        pytest.skip("a task cannot be begun anew any more")
    run_script(
        loop_kind,
        """
        import types
        ours = KIND == "hotloop"
        Future = hotloop.Future if ours else asyncio.Future
        Task = hotloop.Task if ours else asyncio.Task
        loop = new_loop()
        reports = []
        loop.set_exception_handler(lambda loop, context: reports.append(context))

        class Foreign:
            _asyncio_future_blocking = True
            pad = bytes(100)
            def get_loop(self):
                return loop
            def add_done_callback(self, callback, context=None):
                self.callback = callback
            def result(self):
                return 1
            def cancel(self, msg=None):
                return True

        @types.coroutine
        def foreign():
            while True:
                yield Foreign()

        async def waits(future):
            await future

        async def waits_on():
            await foreign()

        def again():
            wakeup = future._callbacks[0][0]
            done = Future(loop=loop)
            done.set_result(1)
            future.set_result(5)
            task.__init__(waits_on(), loop=loop)
            for _ in range(2):
                wakeup(done)

        future = Future(loop=loop)
        task = Task(waits(future), loop=loop)
        loop.call_soon(loop.call_soon, again)
        loop.call_later(0.02, loop.stop)
        loop.run_forever()
        assert not task.done(), task
        assert not any("exception" in report for report in reports), reports
        task.cancel()
        os._exit(0)
        """,
        quiet=False,
    )


def test_init_again_on_a_closed_loop() -> None:
    """What it ran on is gone: that is said, and nothing of it is used."""
    run_script(
        "hotloop",
        """
        loop = new_loop()
        loop.close()
        for revive in (loop.__init__, lambda: setattr(loop, "_closed", False)):
            try:
                revive()
            except RuntimeError as error:
                assert str(error) == "Event loop is closed", error
            else:
                raise AssertionError(revive)
            assert loop.is_closed()
        """,
    )


@pytest.mark.parametrize("by_turns", [False, True], ids=["run", "_run_once"])
def test_a_running_loop_that_forgot_it_is_not_closed(by_turns: bool) -> None:
    """After another __init__() it says that it does not run; yet it goes on."""
    out, _ = run_script(
        "hotloop",
        f"""
        import signal

        class Loop(hotloop.Loop):
            if {by_turns}:
                def _run_once(self):
                    super()._run_once()

        async def main():
            loop.__init__()
            assert not loop.is_running()
            wakeup = signal.set_wakeup_fd(-1)
            assert wakeup == loop._csock.fileno()
            signal.set_wakeup_fd(wakeup)
            for _ in range(2):
                try:
                    loop.close()
                except RuntimeError as error:
                    print(error)
                assert not loop.is_closed()
                await asyncio.sleep(0.001)
            return "over"

        loop = Loop()
        print(loop.run_until_complete(main()))
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        assert loop.is_closed()
        """,
        quiet=False,
    )
    assert out.split("\n")[:3] == ["Cannot close a running event loop"] * 2 + ["over"]
