"""The public face: names, run, policy, types, signatures, what import does."""

# mypy: disable-error-code="call-overload"

from __future__ import annotations

import asyncio
import importlib.resources
import inspect
import subprocess
import sys
import warnings
from typing import Any

import pytest

from support import PY, collect, connected, finish, run_script, wanted_kinds

hotloop: Any = (
    pytest.importorskip("hotloop")
    if "hotloop" not in wanted_kinds()
    else __import__("hotloop")
)
POLICIES = pytest.mark.skipif(PY >= (3, 16), reason="Python has no policies")


async def five() -> int:
    await asyncio.sleep(0)
    return 5


def test_names() -> None:
    names = ("Loop", "new_event_loop", "run", "Task", "Future", "__version__")
    names += ("StreamReader", "StreamWriter", "open_connection", "start_server")
    names += ("open_unix_connection", "start_unix_server")
    names += ("install_streams", "uninstall_streams")
    for name in names:
        assert name in dir(hotloop) and hasattr(hotloop, name)
        assert name in hotloop.__all__
    assert isinstance(hotloop.__version__, str)
    numbers = hotloop.__version__.split(".")
    assert len(numbers) >= 2 and numbers[0].isdigit() and numbers[1].isdigit()
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = hotloop.nonsense


def test_version_is_the_installed_one() -> None:
    import importlib.metadata

    try:
        version = importlib.metadata.version("hotloop")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("not installed, but built in place")
    assert version == hotloop.__version__


def test_typed() -> None:
    folder = importlib.resources.files("hotloop")
    assert (folder / "py.typed").is_file()
    assert (folder / "_core.pyi").is_file()


def test_import_touches_nothing() -> None:
    code = """
import asyncio, signal, sys, threading, warnings
warnings.simplefilter("error")
before = (
    signal.set_wakeup_fd(-1), threading.active_count(),
    [signal.getsignal(n) for n in (1, 2, 10, 12, 15, 17)],
    asyncio.Task, asyncio.Future, asyncio.SelectorEventLoop,
    asyncio.new_event_loop, asyncio.run, asyncio.events._event_loop_policy,
    sys.get_asyncgen_hooks(),
)
import hotloop
after = (
    signal.set_wakeup_fd(-1), threading.active_count(),
    [signal.getsignal(n) for n in (1, 2, 10, 12, 15, 17)],
    asyncio.Task, asyncio.Future, asyncio.SelectorEventLoop,
    asyncio.new_event_loop, asyncio.run, asyncio.events._event_loop_policy,
    sys.get_asyncgen_hooks(),
)
assert before == after, (before, after)
assert "hotloop._policy" not in sys.modules
loop = asyncio.SelectorEventLoop()
assert type(loop.create_future()) is asyncio.Future
loop.close()
print("clean")
"""
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "clean\n", "")


def test_new_event_loop() -> None:
    first, second = hotloop.new_event_loop(), hotloop.new_event_loop()
    assert type(first) is hotloop.Loop and first is not second
    assert isinstance(first, asyncio.AbstractEventLoop)
    assert isinstance(first, asyncio.BaseEventLoop)
    assert isinstance(first, asyncio.SelectorEventLoop)
    first.close()
    second.close()
    loop = hotloop.Loop()
    assert loop.run_until_complete(five()) == 5
    loop.close()


def test_run() -> None:
    assert hotloop.run(five()) == 5

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        assert type(loop) is hotloop.Loop
        assert type(asyncio.current_task()) is hotloop.Task
        return loop

    loop = hotloop.run(main())
    assert loop.is_closed()


def test_run_debug() -> None:
    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert hotloop.run(main(), debug=True) is True
    assert hotloop.run(main(), debug=False) is False
    assert hotloop.run(main()) is False


def test_run_loop_factory() -> None:
    made: list[Any] = []

    def factory() -> Any:
        made.append(hotloop.new_event_loop())
        return made[-1]

    async def main() -> bool:
        return asyncio.get_running_loop() is made[0]

    assert hotloop.run(main(), loop_factory=factory) is True
    assert made[0].is_closed()


def outcome(call: Any) -> tuple[type[BaseException], str]:
    with pytest.raises(Exception) as caught:
        call()
    return caught.type, str(caught.value)


@pytest.mark.parametrize("wrong", [None, 5, five, "text"])
def test_run_refuses_what_asyncio_refuses(wrong: Any) -> None:
    mine = outcome(lambda: hotloop.run(wrong))
    reference = outcome(lambda: asyncio.run(wrong))
    assert mine == reference


def test_run_inside_a_loop() -> None:
    async def main() -> tuple[Any, Any]:
        coro = five()
        mine = outcome(lambda: hotloop.run(coro))
        reference = outcome(lambda: asyncio.run(coro))
        coro.close()
        return mine, reference

    mine, reference = hotloop.run(main())
    assert mine == reference
    assert mine[0] is RuntimeError


def test_run_takes_keywords_only() -> None:
    coro = five()
    with pytest.raises(TypeError):
        hotloop.run(coro, True)
    coro.close()
    parameters = inspect.signature(hotloop.run).parameters
    assert list(parameters)[:2] == ["main", "debug"]
    assert "loop_factory" in parameters
    assert parameters["debug"].default is None


def test_run_cleans_up() -> None:
    ended: list[str] = []

    async def forgotten() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append("task")

    async def numbers() -> Any:
        try:
            yield 1
        finally:
            ended.append("generator")

    async def main() -> None:
        keep.append(asyncio.create_task(forgotten()))
        generator = numbers()
        keep.append(generator)
        await generator.__anext__()
        await asyncio.to_thread(int)

    keep: list[Any] = []
    hotloop.run(main())
    assert ended == ["task", "generator"]


def test_runner() -> None:
    with asyncio.Runner(loop_factory=hotloop.new_event_loop) as runner:
        assert type(runner.get_loop()) is hotloop.Loop
        assert runner.run(five()) == 5
        assert runner.run(five()) == 5


@pytest.mark.skipif(PY < (3, 12), reason="asyncio.run got loop_factory with 3.12")
def test_asyncio_run_with_the_factory() -> None:
    async def main() -> bool:
        return isinstance(asyncio.get_running_loop(), hotloop.Loop)

    assert asyncio.run(main(), loop_factory=hotloop.new_event_loop) is True


@POLICIES
def test_policy() -> None:
    out, _ = run_script(
        "hotloop",
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        policy = hotloop.EventLoopPolicy()
        assert isinstance(policy, asyncio.AbstractEventLoopPolicy)
        loop = policy.new_event_loop()
        assert type(loop) is hotloop.Loop
        loop.close()
        asyncio.set_event_loop_policy(policy)
        async def main():
            return type(asyncio.get_running_loop()) is hotloop.Loop
        print(asyncio.run(main()))
        asyncio.set_event_loop_policy(None)
        print(asyncio.run(main()))
        hotloop.install()
        print(asyncio.run(main()))
        """,
    )
    assert out.split() == ["True", "False", "True"]


@POLICIES
def test_install_warns_as_asyncio_does() -> None:
    out, _ = run_script(
        "hotloop",
        """
        import warnings
        def count(call):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                call()
            return sorted({w.category.__name__ for w in caught})
        print(count(hotloop.install))
        print(count(lambda: hotloop.EventLoopPolicy))
        print(count(lambda: asyncio.DefaultEventLoopPolicy))
        """,
    )
    install, mine, reference = out.splitlines()
    if PY >= (3, 14):
        assert install == "['DeprecationWarning']"
        assert mine == reference == "['DeprecationWarning']"
    else:
        assert install in ("[]", "['DeprecationWarning']")
        assert mine == reference == "[]"


@pytest.mark.skipif(PY < (3, 16), reason="Python still has policies")
def test_no_policy_names() -> None:
    assert not hasattr(hotloop, "install")
    assert not hasattr(hotloop, "EventLoopPolicy")


def test_what_is_what() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert issubclass(hotloop.Task, asyncio.Task)
        assert issubclass(hotloop.Task, asyncio.Future)
        assert issubclass(hotloop.Future, asyncio.Future)
        handles = [
            loop.call_soon(int),
            loop.call_soon_threadsafe(int),
            loop.call_later(1, int),
            loop.call_at(1e9, int),
        ]
        for handle in handles:
            assert isinstance(handle, asyncio.Handle)
            handle.cancel()
        assert [isinstance(h, asyncio.TimerHandle) for h in handles] == [
            False,
            False,
            True,
            True,
        ]
        transport, _, peer = await connected()
        assert isinstance(transport, asyncio.Transport)
        assert isinstance(transport, asyncio.ReadTransport)
        assert isinstance(transport, asyncio.WriteTransport)
        await finish(transport, peer)

    hotloop.run(main())


def public(cls: Any) -> list[str]:
    return [
        name
        for name in dir(cls)
        if not name.startswith("_") and callable(getattr(cls, name))
    ]


PAIRS = [
    (lambda: hotloop.Loop, asyncio.SelectorEventLoop),
    (lambda: hotloop.Task, asyncio.tasks._PyTask),  # type: ignore[attr-defined]
    (lambda: hotloop.Future, asyncio.futures._PyFuture),  # type: ignore[attr-defined]
]


@pytest.mark.parametrize("mine,reference", PAIRS, ids=["Loop", "Task", "Future"])
def test_signatures(mine: Any, reference: Any) -> None:
    cls = mine()
    assert set(public(reference)) <= set(public(cls))
    for name in public(reference):
        signature = inspect.signature(getattr(cls, name))
        wanted = inspect.signature(getattr(reference, name))
        assert parameters(signature) == parameters(wanted), name


def parameters(signature: inspect.Signature) -> list[tuple[str, Any]]:
    """Names and kinds; how far positional ones may be named is left open."""
    positional = inspect.Parameter.POSITIONAL_ONLY
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [
        (p.name, either if p.kind is positional else p.kind)
        for p in signature.parameters.values()
        if p.name != "self"
    ]


def test_signatures_of_handles_and_transports() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, _, peer = await connected()
        things = [
            (loop.call_soon(int), asyncio.Handle),
            (loop.call_later(0, int), asyncio.TimerHandle),
            (transport, asyncio.Transport),
        ]
        for thing, reference in things:
            for name in public(reference):
                signature = inspect.signature(getattr(thing, name))
                wanted = inspect.signature(getattr(reference, name))
                assert parameters(signature) == parameters(wanted), name
        await asyncio.sleep(0.001)
        await finish(transport, peer)

    hotloop.run(main())


def test_every_public_callable_has_documentation() -> None:
    for cls in (hotloop.Loop, hotloop.Task, hotloop.Future):
        assert inspect.getdoc(cls)
        for name in vars(cls):
            member = getattr(cls, name)
            if callable(member) and not name.startswith("_"):
                assert inspect.getdoc(member), name


def test_core_types_cannot_be_misused(unraisable: Any) -> None:
    core = sys.modules["hotloop._core"]
    for name, cls in vars(core).items():
        if not isinstance(cls, type) or name.startswith("_"):
            continue
        bare = None
        try:
            bare = cls.__new__(cls)
        except TypeError as error:
            assert str(error)
        assert cls.__module__.split(".")[0] == "hotloop"
        if bare is not None:
            assert isinstance(repr(type(bare)), str)
        del bare
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collect()
    # asyncio's finalizer of a writer wants it to have a transport.
    assert all("'_transport'" in text for text in unraisable.take())


def test_uninitialised_loop_does_not_crash() -> None:
    out, err = run_script(
        "hotloop",
        """
        import warnings
        warnings.simplefilter("ignore")
        bare = hotloop.Loop.__new__(hotloop.Loop)
        calls = [
            ("call_soon", int), ("call_later", 1, int), ("call_at", 1, int),
            ("call_soon_threadsafe", int), ("time",), ("stop",), ("is_running",),
            ("run_forever",), ("add_reader", 0, int), ("remove_reader", 0),
            ("add_writer", 0, int), ("remove_writer", 0), ("create_future",),
            ("is_closed",), ("get_debug",), ("close",), ("_run_once",),
        ]
        for name, *args in calls:
            try:
                getattr(bare, name)(*args)
            except Exception as error:
                assert str(error), name
        try:
            repr(bare)
        except Exception as error:
            assert str(error)
        sys.unraisablehook = lambda args: None
        del bare
        gc.collect()
        class Half(hotloop.Loop):
            def __init__(self):
                pass
        half = Half()
        for name, *args in calls:
            try:
                getattr(half, name)(*args)
            except Exception as error:
                assert str(error), name
        del half
        gc.collect()
        print("survived")
        """,
        quiet=False,
    )
    assert out == "survived\n", err


def test_pickle_and_copy_are_refused() -> None:
    import copy
    import pickle

    loop = hotloop.new_event_loop()
    future = loop.create_future()
    for thing in (loop, future):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
        with pytest.raises(TypeError):
            copy.copy(thing)
    future.cancel()
    loop.close()


def test_create_task_takes_what_asyncio_s_takes() -> None:
    ours = list(inspect.signature(hotloop.Loop.create_task).parameters.values())[1:]
    stock = asyncio.BaseEventLoop.create_task
    assert ours == list(inspect.signature(stock).parameters.values())[1:]
