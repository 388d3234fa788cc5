"""What a loop counts and times: loop.metrics(), histograms, the profile."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import time
from typing import Any

import pytest

import hotloop
from hotloop import Histogram, Metrics
from support import collect, run_script, turns, wanted_kinds

pytestmark = pytest.mark.skipif("hotloop" not in wanted_kinds(), reason="hotloop's own")


@pytest.fixture
def loop(log: Any, reports: Any) -> Any:
    """A loop of hotloop's only: asyncio's has none of this."""
    loop = hotloop.new_event_loop()
    loop.set_exception_handler(lambda _, context: reports.append(context))
    asyncio.set_event_loop(loop)
    yield loop
    loop.close()
    asyncio.set_event_loop(None)


def nothing() -> None:
    """Do nothing."""


def block(seconds: float) -> None:
    """Keep the loop busy by this thread's clock."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def run_for(loop: Any, *callbacks: Any) -> None:
    """Queue the callbacks, and run until they are through."""
    for callback in callbacks:
        loop.call_soon(callback)
    loop.call_soon(loop.stop)
    loop.run_forever()


# ---- counts ----


def test_callbacks_and_turns(loop: Any) -> None:
    before = loop.metrics()
    assert before.callbacks == before.turns == before.polls == 0
    run_for(loop, *[nothing] * 10)
    run_for(loop)
    after = loop.metrics()
    assert after.callbacks == 12
    assert after.turns == 2
    assert 1 <= after.polls <= 2


def test_cancelled_callbacks_are_taken_and_queued_ones_are_not(loop: Any) -> None:
    loop.call_soon(nothing).cancel()
    run_for(loop)
    assert loop.metrics().callbacks == 2
    loop.call_soon(nothing)
    loop.call_soon(nothing)
    assert loop.metrics().ready == 2
    loop.close()
    assert loop.metrics().ready == 0
    assert loop.metrics().callbacks == 2


def test_callbacks_are_counted_on_while_the_queue_grows(loop: Any) -> None:
    run_for(loop)
    before = loop.metrics().callbacks
    for _ in range(1000):
        loop.call_soon(nothing)
    assert loop.metrics().callbacks == before
    run_for(loop)
    assert loop.metrics().callbacks == before + 1000 + 1


async def test_steps_and_tasks(loop: Any) -> None:
    async def steps(count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    before = loop.metrics()
    await asyncio.gather(steps(3), steps(5))
    delta = loop.metrics().since(before)
    assert delta.tasks_created == 2
    assert delta.tasks == 1
    # Each has one step more than it sleeps; this one was woken.
    assert delta.task_steps == 4 + 6 + 1


@pytest.mark.parametrize("how", ["returns", "raises", "cancelled"])
async def test_tasks_end(loop: Any, how: str) -> None:
    async def child() -> None:
        await asyncio.sleep(0 if how != "cancelled" else 3600)
        if how == "raises":
            raise ValueError

    task = loop.create_task(child())
    assert loop.metrics().tasks == 2
    await turns(2)
    if how == "cancelled":
        task.cancel()
    await asyncio.wait([task])
    assert loop.metrics().tasks == 1
    assert task.cancelled() or task.exception() is None or how == "raises"


def test_tasks_that_die_pending(loop: Any, reports: Any) -> None:
    async def never() -> None:
        await loop.create_future()

    task = loop.create_task(never())
    run_for(loop)
    assert loop.metrics().tasks == 1
    del task
    collect()
    assert loop.metrics().tasks == 1  # the report has it
    assert "destroyed" in reports.one()["message"]
    collect()
    assert loop.metrics().tasks == 0


@pytest.mark.skipif(
    not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with 3.12"
)
async def test_eager_tasks(loop: Any) -> None:
    async def five() -> int:
        return 5

    before = loop.metrics()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    assert loop.create_task(five()).result() == 5
    delta = loop.metrics().since(before)
    assert (delta.tasks_created, delta.tasks, delta.task_steps) == (1, 1, 1)


async def test_timers(loop: Any) -> None:
    before = loop.metrics()
    first, *others = [loop.call_later(3600, nothing) for _ in range(10)]
    assert loop.metrics().timers == before.timers + 10
    first.cancel()
    delta = loop.metrics().since(before)
    assert delta.timers_scheduled == 10
    assert delta.timers - delta.timers_cancelled == 9
    for other in others:
        other.cancel()
    assert loop.metrics().timers == loop.metrics().timers_cancelled


async def test_threads_and_executors(loop: Any) -> None:
    before = loop.metrics()
    done = asyncio.Event()
    thread = threading.Thread(
        target=lambda: loop.call_soon_threadsafe(done.set), daemon=True
    )
    thread.start()
    await done.wait()
    thread.join()
    assert loop.metrics().since(before).threadsafe_calls == 1
    await loop.run_in_executor(None, nothing)
    await asyncio.to_thread(nothing)
    assert loop.metrics().since(before).executor_jobs == 2
    await loop.shutdown_default_executor()


async def test_jobs_of_debug_mode(loop: Any) -> None:
    loop.set_debug(True)
    await loop.run_in_executor(None, nothing)
    assert loop.metrics().executor_jobs == 1
    await loop.shutdown_default_executor()


def test_state(loop: Any) -> None:
    seen: list[Metrics] = []
    assert not loop.metrics().running
    run_for(loop, lambda: seen.append(loop.metrics()))
    assert seen[0].running and not seen[0].closed
    loop.close()
    last = loop.metrics()
    assert last.closed and not last.running
    assert seen[0].started == last.started <= seen[0].time <= last.time
    assert last.seconds == last.time - last.started


# ---- times ----


def test_times_stand_still_when_off(loop: Any) -> None:
    run_for(loop, lambda: block(0.002))
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    metrics = loop.metrics()
    assert not metrics.enabled
    for field in dataclasses.fields(metrics):
        if field.metadata["timed"]:
            assert getattr(metrics, field.name) in (0, Histogram()), field.name


def test_time_is_where_it_was_spent(loop: Any) -> None:
    loop.enable_metrics()
    before = time.monotonic()
    run_for(loop, lambda: block(0.02))
    loop.call_later(0.03, loop.stop)
    loop.run_forever()
    passed = time.monotonic() - before
    metrics = loop.metrics()
    assert metrics.enabled and not metrics.profiling
    assert metrics.busy_seconds >= 0.02
    assert metrics.poll_seconds >= 0.029
    assert metrics.gil_seconds >= 0
    parts = metrics.busy_seconds + metrics.poll_seconds + metrics.gil_seconds
    assert metrics.run_seconds == pytest.approx(parts)
    assert metrics.run_seconds <= passed
    assert metrics.utilization == pytest.approx(
        1 - metrics.poll_seconds / metrics.run_seconds
    )
    time.sleep(0.01)  # a loop that does not run spends nothing
    assert loop.metrics().run_seconds == metrics.run_seconds


def test_lag_is_what_a_callback_keeps_others_waiting(loop: Any) -> None:
    loop.enable_metrics()
    run_for(loop, lambda: block(0.05))
    lag = loop.metrics().lag
    assert lag.count >= 1
    assert lag.max >= 0.05
    assert lag.total >= lag.max
    assert lag.quantile(1) == lag.max
    before = loop.metrics()
    loop.call_later(0.001, nothing)
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert loop.metrics().since(before).lag.count >= 1


def test_lag_of_late_timers(loop: Any) -> None:
    loop.enable_metrics()
    loop.call_later(0.001, nothing)
    run_for(loop, lambda: block(0.05))
    assert loop.metrics().timer_lag.count == 0
    run_for(loop)
    lag = loop.metrics().timer_lag
    assert lag.count == 1
    assert lag.max >= 0.049


def test_longest_queue(loop: Any) -> None:
    loop.enable_metrics()
    run_for(loop, *[nothing] * 30)
    run_for(loop)
    assert loop.metrics().ready_max == 31


def test_time_waiting_for_the_gil(loop: Any) -> None:
    loop.enable_metrics()
    ends = threading.Event()

    def compete() -> None:
        while not ends.is_set():
            block(0.001)

    thread = threading.Thread(target=compete, daemon=True)
    thread.start()
    try:
        # The other takes the GIL whenever this one waits, and gives it back
        # after a switch interval at the earliest.
        for _ in range(5):
            loop.call_later(0.001, loop.stop)
            loop.run_forever()
    finally:
        ends.set()
        thread.join()
    assert loop.metrics().gil_seconds > 0.001


def test_from_another_thread_while_the_loop_sleeps(loop: Any) -> None:
    loop.enable_metrics()
    seen: list[Metrics] = []

    def look() -> None:
        while not loop.metrics().running:
            time.sleep(0.001)
        first = loop.metrics()
        while loop.metrics().since(first).poll_seconds < 0.01:
            time.sleep(0.001)  # a poll that has not ended counts as well
        seen.append(loop.metrics())
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    loop.run_forever()
    thread.join()
    assert seen[0].running
    assert seen[0].poll_seconds <= loop.metrics().poll_seconds


def test_on_and_off_while_running(loop: Any) -> None:
    run_for(loop, loop.enable_metrics, lambda: block(0.01))
    busy = loop.metrics().busy_seconds
    assert busy >= 0.01
    run_for(loop, lambda: loop.enable_metrics(False), lambda: block(0.01))
    assert loop.metrics().busy_seconds - busy < 0.01
    assert not loop.metrics().enabled
    run_for(loop, loop.enable_metrics, lambda: block(0.01))
    assert loop.metrics().busy_seconds >= busy + 0.01


def test_on_from_another_thread_while_the_loop_sleeps(loop: Any) -> None:
    def switch() -> None:
        while not loop.metrics().polls:
            time.sleep(0.001)
        loop.enable_metrics(profile=True)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=switch, daemon=True)
    thread.start()
    loop.run_forever()
    thread.join()
    assert loop.metrics().run_seconds <= loop.metrics().seconds
    assert [entry.name for entry in loop.profile()] == ["Loop.stop"]


def test_turns_inside_of_a_callback(loop: Any) -> None:
    loop.enable_metrics(profile=True)

    def nest() -> None:
        loop.call_soon(nothing)
        loop._run_once()

    run_for(loop, nest)
    metrics = loop.metrics()
    assert metrics.callbacks == 3
    assert metrics.callback_seconds.count == 3
    assert metrics.run_seconds <= metrics.seconds


def test_a_loop_with_a_clock_of_its_own() -> None:
    class Slow(hotloop.Loop):
        """Has all the time in the world."""

        def time(self) -> float:
            return 1e30 if self.late else 1.0

        late = False

    loop = Slow()
    try:
        loop.enable_metrics()
        loop.call_at(2.0, loop.stop)
        loop.late = True
        loop.run_forever()
        metrics = loop.metrics()
        assert metrics.timer_lag.count == 1
        assert metrics.run_seconds <= metrics.seconds < 1e9
    finally:
        loop.close()


def test_a_clock_that_fails_ends_the_run_and_no_count() -> None:
    class Broken(hotloop.Loop):
        """Has no time at all."""

        def time(self) -> float:
            raise ZeroDivisionError

    loop = Broken()
    try:
        loop.enable_metrics(profile=True)
        loop.call_at(1.0, nothing)
        with pytest.raises(ZeroDivisionError):
            loop.run_forever()
        before = loop.metrics().run_seconds
        assert loop.metrics().run_seconds == before
    finally:
        loop.close()


# ---- the profile ----


def test_profile_by_function(loop: Any) -> None:
    loop.enable_metrics(profile=True)

    async def sleeper() -> None:
        await asyncio.sleep(0)
        block(0.01)

    run_for(loop, nothing, nothing, lambda: block(0.02))
    loop.run_until_complete(sleeper())
    entries = loop.profile()
    assert entries == sorted(entries, key=lambda entry: -entry.seconds)
    found = {entry.name.rpartition(".")[2]: entry for entry in entries}
    assert found["nothing"].calls == 2
    assert found["nothing"].kind == "callback"
    assert found["nothing"].file == __file__
    assert found["nothing"].line == nothing.__code__.co_firstlineno
    assert found["<lambda>"].seconds >= 0.02
    assert found["sleeper"].kind == "task"
    assert found["sleeper"].calls == 2
    assert 0.01 <= found["sleeper"].max_seconds <= found["sleeper"].seconds
    total = sum(entry.seconds for entry in entries)
    assert total <= loop.metrics().busy_seconds
    histogram = loop.metrics().callback_seconds
    assert histogram.count == sum(entry.calls for entry in entries)
    assert histogram.total == pytest.approx(total)
    json.dumps([entry.as_dict() for entry in entries])


def test_profile_can_be_cleared(loop: Any) -> None:
    assert loop.profile() == []
    loop.enable_metrics(profile=True)
    run_for(loop, nothing)
    assert len(loop.profile(clear=True)) == 2
    assert loop.profile() == []
    run_for(loop, nothing)
    assert len(loop.profile()) == 2
    loop.enable_metrics()
    run_for(loop, nothing)
    assert sum(entry.calls for entry in loop.profile()) == 2


def test_profile_is_bounded(loop: Any) -> None:
    loop.enable_metrics(profile=True)
    functions: list[Any] = []
    for number in range(1100):
        names: dict[str, Any] = {}
        exec(f"def f{number}(): pass", names)
        functions.append(names[f"f{number}"])
    run_for(loop, *functions)
    entries = loop.profile()
    assert len(entries) == 1025
    other = [entry for entry in entries if entry.name == "(other)"]
    assert other[0].calls == 1101 - 1024


@pytest.mark.parametrize("debug", [False, True])
def test_profile_sees_through_wrappers(loop: Any, debug: bool) -> None:
    import functools

    class Thing:
        """Has what may be called."""

        def method(self) -> None: ...

        def __call__(self) -> None: ...

    async def coroutine() -> None: ...

    loop.set_debug(debug)
    loop.enable_metrics(profile=True)
    partial = functools.partial(functools.partial(Thing().method))
    loop.call_soon(partial)
    loop.call_soon([].append, 1)
    loop.call_soon(Thing)
    loop.call_soon(Thing())
    loop.run_until_complete(coroutine())
    names = {entry.name.rpartition("<locals>.")[2] for entry in loop.profile()}
    assert {"Thing.method", "list.append", "Thing", "coroutine"} <= names


def test_slow_callbacks(loop: Any) -> None:
    loop.enable_metrics(profile=True)
    loop.slow_callback_duration = 0.01
    run_for(loop, nothing, lambda: block(0.02))
    assert loop.metrics().slow_callbacks == 1


def test_a_profiled_callback_may_fail_or_stop_everything(
    loop: Any, reports: Any
) -> None:
    loop.enable_metrics(profile=True)

    def fail() -> None:
        raise ValueError("as usual")

    def leave() -> None:
        raise KeyboardInterrupt

    run_for(loop, fail)
    assert isinstance(reports.one()["exception"], ValueError)
    with pytest.raises(KeyboardInterrupt):
        run_for(loop, leave)
    assert {entry.name.rpartition(".")[2] for entry in loop.profile()} >= {
        "fail",
        "leave",
    }
    loop.run_forever()  # until the stop() that was left over


def test_a_profile_keeps_no_loop_alive() -> None:
    import weakref

    loop = hotloop.new_event_loop()
    loop.enable_metrics(profile=True)

    def refer(loop: Any = loop) -> None: ...

    run_for(loop, refer)
    del refer
    loop.close()
    dead = weakref.ref(loop)
    del loop
    collect()
    assert dead() is None


# ---- switching on ----


def test_run_switches_on() -> None:
    async def look() -> Metrics:
        loop: Any = asyncio.get_running_loop()
        return loop.metrics()  # type: ignore[no-any-return]

    assert not hotloop.run(look()).enabled
    assert hotloop.run(look(), metrics=True).enabled
    assert hotloop.run(look(), metrics="profile").profiling


def test_run_needs_a_loop_of_ours() -> None:
    async def unused() -> None: ...

    main = unused()
    with pytest.raises(TypeError, match=r"a hotloop\.Loop has metrics, not <_Unix"):
        hotloop.run(main, metrics=True, loop_factory=asyncio.SelectorEventLoop)
    main.close()


LOOK = """
import hotloop
loop = hotloop.new_event_loop()
print(loop.metrics().enabled, loop.metrics().profiling)
loop.close()
"""


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("", "False False"),
        ("0", "False False"),
        ("1", "True False"),
        ("profile", "True True"),
    ],
)
def test_environment(value: str, printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTLOOP_METRICS", value)
    out, _ = run_script("hotloop", LOOK)
    assert out.strip() == printed


def test_environment_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTLOOP_METRICS", "yes")
    with pytest.raises(ValueError, match="HOTLOOP_METRICS is to be 0, 1 or profile"):
        hotloop.new_event_loop()
