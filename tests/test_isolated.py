"""Whole processes: forks, threads, exits, subinterpreters, leaks."""

from __future__ import annotations

import os
import textwrap

import pytest

from support import PY, run_script

# AddressSanitizer keeps freed memory for a while: sizes say nothing then.
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")


def test_exit_with_work_pending(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        loop = new_loop()
        loop.call_soon(print, "never")
        loop.call_later(10, print, "never")
        a, b = socket.socketpair()
        loop.add_reader(a, print, "never")
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.call_soon(print, "never")
        print("leaving")
        """,
        quiet=False,
    )
    assert out.splitlines()[-1] == "leaving"


def test_exit_with_tasks_pending(loop_kind: str) -> None:
    out, err = run_script(
        loop_kind,
        """
        async def forever():
            await asyncio.get_running_loop().create_future()
        async def main():
            for _ in range(10):
                keep.append(asyncio.create_task(forever()))
            await asyncio.sleep(0)
        keep = []
        loop = new_loop()
        loop.run_until_complete(main())
        print("leaving", flush=True)
        """,
        quiet=False,
    )
    assert out == "leaving\n"
    assert "Fatal Python error" not in err


def test_exit_with_transports_open(loop_kind: str) -> None:
    out, err = run_script(
        loop_kind,
        """
        async def main():
            loop = asyncio.get_running_loop()
            server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            keep.extend([await asyncio.open_connection(*address) for _ in range(5)])
            keep[0][1].write(b"x" * 10_000_000)
            keep.append(server)
        keep = []
        loop = new_loop()
        loop.run_until_complete(main())
        print("leaving", flush=True)
        """,
        quiet=False,
    )
    assert out == "leaving\n"
    assert "Fatal Python error" not in err


def test_os_exit_and_sys_exit_in_a_callback(loop_kind: str) -> None:
    run_script(
        loop_kind,
        """
        loop = new_loop()
        loop.call_soon(sys.exit, 5)
        try:
            loop.run_forever()
        finally:
            loop.close()
        """,
        code=5,
    )
    run_script(
        loop_kind,
        """
        loop = new_loop()
        loop.call_soon(os._exit, 6)
        loop.run_forever()
        """,
        code=6,
    )


def test_loop_collected_unclosed(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        import warnings
        def fds():
            return len(os.listdir("/proc/self/fd"))
        new_loop().close()
        before = fds()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(20):
                loop = new_loop()
                loop.call_later(10, print)
                loop.run_until_complete(asyncio.sleep(0))
                del loop
                gc.collect()
        found = [w for w in caught if "unclosed event loop" in str(w.message)]
        print(len(found), fds() - before)
        """,
    )
    assert out == "20 0\n"


@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="measures memory")
def test_many_loops_leave_nothing(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        import resource
        def one():
            loop = new_loop()
            async def main():
                await asyncio.sleep(0)
                await loop.run_in_executor(None, int)
                server = await asyncio.start_server(print, "127.0.0.1", 0)
                server.close()
                await server.wait_closed()
            loop.run_until_complete(main())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
        def fds():
            return len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            one()
        gc.collect()
        before, start = fds(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(300):
            one()
        gc.collect()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
        print(fds() - before, grown < 4096)
        """,
        timeout=50,
    )
    assert out == "0 True\n"


LEAKS = {
    "tasks": """
        async def work():
            async def child(n):
                await asyncio.sleep(0)
                return n
            await asyncio.gather(*(child(n) for n in range(200)))
    """,
    "errors": """
        async def work():
            async def child():
                await asyncio.sleep(0)
                raise ValueError("x" * 1000)
            await asyncio.gather(*(child() for _ in range(200)),
                                 return_exceptions=True)
    """,
    "cancels": """
        async def work():
            tasks = [asyncio.create_task(asyncio.sleep(10)) for _ in range(200)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    """,
    "timers": """
        async def work():
            loop = asyncio.get_running_loop()
            handles = [loop.call_later(100, print, "x" * 500) for _ in range(300)]
            for handle in handles:
                handle.cancel()
            for _ in range(50):
                loop.call_later(0, int)
            await asyncio.sleep(0.0001)
    """,
    "connections": """
        async def work():
            async def serve(reader, writer):
                writer.write(await reader.read(100))
                writer.close()
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            for _ in range(10):
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"x" * 100)
                await reader.read()
                writer.close()
                await writer.wait_closed()
            server.close()
            await server.wait_closed()
    """,
}


@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="measures memory")
@pytest.mark.parametrize("name", LEAKS)
def test_memory_does_not_grow(loop_kind: str, name: str) -> None:
    body = textwrap.dedent(LEAKS[name])
    script = body + textwrap.dedent(
        """
            def resident():
                with open("/proc/self/statm") as file:
                    return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            async def main(rounds):
                for _ in range(rounds):
                    await work()
            loop = new_loop()
            loop.run_until_complete(main(100))
            gc.collect()
            before, blocks = resident(), sys.getallocatedblocks()
            loop.run_until_complete(main(200))
            gc.collect()
            grown = resident() - before
            more = sys.getallocatedblocks() - blocks
            loop.close()
            print(grown < 1_500_000, more < 1000, grown, more)
            """
    )
    out, _ = run_script(loop_kind, script, timeout=50)
    assert out.startswith("True True"), out


def test_fork_inside_a_running_loop(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        import warnings
        warnings.simplefilter("ignore")
        async def child():
            await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"from the child")
            writer.close()
            await writer.wait_closed()
            return await asyncio.to_thread(lambda: 7)
        async def main():
            global address
            got = asyncio.get_running_loop().create_future()
            async def serve(reader, writer):
                got.set_result(await reader.read())
                writer.close()
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            timer = asyncio.create_task(asyncio.sleep(0.2))
            pid = os.fork()
            if pid == 0:
                if sys.version_info < (3, 12):
                    asyncio._set_running_loop(None)
                loop = new_loop()
                value = loop.run_until_complete(child())
                os._exit(value)
            print((await got).decode())
            await timer
            status = await asyncio.to_thread(os.waitpid, pid, 0)
            print(os.waitstatus_to_exitcode(status[1]))
            server.close()
            await server.wait_closed()
        run(main())
        print("parent done")
        """,
    )
    assert out.splitlines() == ["from the child", "7", "parent done"]


def test_a_forked_child_ends_a_wait_of_the_parent(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        import socket, warnings
        warnings.simplefilter("ignore")
        async def main():
            left, right = socket.socketpair()
            left.setblocking(False)
            loop = asyncio.get_running_loop()
            task = loop.create_task(loop.sock_recv(left, 9))
            await asyncio.sleep(0.01)
            pid = os.fork()
            if pid == 0:
                task.get_coro().close()
                os._exit(0)
            os.waitpid(pid, 0)
            right.send(b"for the parent")
            print(await asyncio.wait_for(task, 5))
        run(main())
        """,
    )
    assert out == "b'for the p'\n"


def test_fork_before_the_loop_runs(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0))
        pid = os.fork()
        if pid == 0:
            other = new_loop()
            other.run_until_complete(asyncio.sleep(0.01))
            other.close()
            os._exit(3)
        loop.run_until_complete(asyncio.sleep(0.02))
        loop.close()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """,
    )
    assert out == "3\n"


def test_child_that_drops_the_parents_loop(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        import warnings
        warnings.simplefilter("ignore")
        a, b = socket.socketpair()
        loop = new_loop()
        seen = []
        def ready():
            seen.append(a.recv(10))
            loop.stop()
        loop.add_reader(a, ready)
        loop.run_until_complete(asyncio.sleep(0))
        pid = os.fork()
        if pid == 0:
            loop = None
            gc.collect()
            os._exit(0)
        os.waitpid(pid, 0)
        # What the child closed must not have been the parent's.
        b.send(b"still")
        loop.run_forever()
        print(seen)
        loop.remove_reader(a)
        loop.close()
        """,
    )
    assert out == "[b'still']\n"


def test_subprocess_from_several_threads(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        """
        results = []
        def work(n):
            async def main():
                results.append(await asyncio.to_thread(pow, n, 2))
                await asyncio.sleep(0.01)
            run(main())
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(sorted(results))
        """,
    )
    assert out == f"{[n * n for n in range(8)]}\n"


def test_thread_that_ends_with_its_loop_open(loop_kind: str) -> None:
    out, err = run_script(
        loop_kind,
        """
        import warnings
        warnings.simplefilter("ignore")
        def work():
            loop = new_loop()
            loop.run_until_complete(asyncio.sleep(0))
            keep.append(loop)
        keep = []
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        keep.pop().close()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        keep.clear()
        gc.collect()
        print("done")
        """,
    )
    assert out == "done\n", err


def test_daemon_thread_with_a_running_loop_at_exit(loop_kind: str) -> None:
    for busy in ("", "loop.call_soon(again)"):
        out, err = run_script(
            loop_kind,
            f"""
            def work():
                loop = new_loop()
                def again():
                    loop.call_soon(again)
                {busy or "loop.call_soon(int)"}
                loop.run_forever()
            threading.Thread(target=work, daemon=True).start()
            time.sleep(0.1)
            print("leaving", flush=True)
            """,
            quiet=False,
        )
        assert out == "leaving\n"
        assert "Fatal Python error" not in err


SUBINTERPRETER = """
try:
    import _interpreters as sub
except ImportError:
    import _xxsubinterpreters as sub
code = '''
import asyncio
try:
    MODULE
except ImportError as error:
    print("ImportError", error)
else:
    loop = factory()
    loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()
    print("works")
'''.replace("MODULE", MODULE)
for _ in range(2):
    interpreter = sub.create()
    result = sub.run_string(interpreter, code)
    if result is not None:
        print("failed", result)
    sub.destroy(interpreter)
loop = new_loop()
loop.run_until_complete(asyncio.sleep(0.001))
loop.close()
print("main works")
"""


@pytest.mark.skipif(PY < (3, 13), reason="asyncio itself crashes there in 3.12")
def test_subinterpreter(loop_kind: str) -> None:
    module = {
        "asyncio": "factory = asyncio.SelectorEventLoop",
        "hotloop": "import hotloop; factory = hotloop.new_event_loop",
    }[loop_kind]
    out, err = run_script(
        loop_kind, f"MODULE = {module!r}\n" + SUBINTERPRETER, quiet=False
    )
    lines = out.splitlines()
    assert lines[-1] == "main works", err
    for line in lines[:-1]:
        # Either it works, or it says clearly that it does not.
        assert line == "works" or line.startswith("ImportError"), out


def test_imported_twice(loop_kind: str) -> None:
    if loop_kind == "asyncio":
        pytest.skip("about the extension module")
    out, _ = run_script(
        loop_kind,
        """
        first = hotloop
        for name in [n for n in sys.modules if n.split(".")[0] == "hotloop"]:
            del sys.modules[name]
        import hotloop as second
        for module in (first, second):
            loop = module.new_event_loop()
            loop.run_until_complete(asyncio.sleep(0.001))
            loop.close()
        del first
        gc.collect()
        loop = second.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        print("works")
        """,
    )
    assert out == "works\n"


def test_out_of_memory(loop_kind: str) -> None:
    pytest.importorskip("_testcapi")
    if loop_kind == "asyncio":
        pytest.skip("about the extension module")
    out, _ = run_script(
        loop_kind,
        """
        import _testcapi
        loop = new_loop()
        loop.set_exception_handler(lambda loop, context: None)
        sys.unraisablehook = lambda args: None

        async def value():
            await asyncio.sleep(0)

        def soon():
            loop.call_soon(int, 1, 2)

        def later():
            loop.call_later(100, int).cancel()

        def future():
            future = loop.create_future()
            future.add_done_callback(id)
            future.set_result(1)

        def threadsafe():
            loop.call_soon_threadsafe(int)

        def task():
            coro = value()
            try:
                loop.create_task(coro)
            except MemoryError:
                coro.close()
                raise

        failed = 0
        for action in (soon, later, future, threadsafe, task):
            for count in range(1, 60):
                _testcapi.set_nomemory(count, count + 1)
                try:
                    action()
                except MemoryError:
                    failed += 1
                finally:
                    _testcapi.remove_mem_hooks()
                if count % 10 == 0:
                    loop.call_soon(loop.stop)
                    loop.run_forever()
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        print("survived", failed > 2)
        """,
        quiet=False,
    )
    assert out == "survived True\n"
