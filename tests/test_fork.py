"""Forks: the child gets working loops, the parent never notices."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import textwrap

import pytest

from support import PRELUDE, PY, run_script, script_env

# Pythons from 3.12 on warn of a fork in a process that has threads.
FORKING = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)

def fork(child):
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = child()
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return pid

def status(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def fork_script(kind: str, body: str, first: str = "", quiet: bool = True) -> list[str]:
    source = textwrap.dedent(first) + PRELUDE + FORKING + textwrap.dedent(body)
    out, _ = run_script(kind, source, prelude=False, quiet=quiet)
    return out.splitlines()


def ours_only(kind: str) -> None:
    if kind == "asyncio":
        pytest.skip("asyncio's child shares the epoll of its parent")


def test_run_in_the_child_of_a_running_loop(loop_kind: str) -> None:
    assert fork_script(
        loop_kind,
        """
        async def inner():
            task = asyncio.current_task()
            assert task in asyncio.all_tasks()
            assert asyncio.get_running_loop() is not outer
            await asyncio.sleep(0.01)
            assert await asyncio.to_thread(lambda: 5) == 5
            done = await asyncio.create_subprocess_exec("true")
            assert await done.wait() == 0
            return 7

        async def main():
            global outer
            outer = asyncio.get_running_loop()
            pid = fork(lambda: run(inner()))
            assert asyncio.get_running_loop() is outer
            assert asyncio.current_task() is not None
            await asyncio.sleep(0.01)
            print(await asyncio.to_thread(status, pid))

        run(main())
        """,
    ) == ["7"]


def test_no_running_loop_in_the_child(loop_kind: str) -> None:
    assert fork_script(
        loop_kind,
        """
        def child():
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return 3
            return 4

        async def main():
            print(await asyncio.to_thread(status, fork(child)))

        run(main())
        """,
    ) == ["3"]


@pytest.mark.parametrize("how", ["close", "forget", "remove", "run"])
def test_inherited_loop_is_the_childs_own(loop_kind: str, how: str) -> None:
    """Whatever the child does with it, the parent's watching goes on."""
    ours_only(loop_kind)
    lines = fork_script(
        loop_kind,
        """
        near, far = socket.socketpair()
        left, right = socket.socketpair()
        loop = new_loop()
        got = []

        class Protocol(asyncio.Protocol):
            def data_received(self, data):
                got.append(data)

        transport, protocol = loop.run_until_complete(
            loop.connect_accepted_socket(Protocol, near))
        loop.add_reader(left, lambda: got.append(left.recv(9)))
        loop.add_signal_handler(signal.SIGUSR1, got.append, "signal")
        loop.run_until_complete(asyncio.sleep(0.01))

        def child():
            global loop, transport, protocol
            warnings.simplefilter("ignore")
            if HOW == "close":
                loop.close()
            elif HOW == "forget":
                loop = transport = protocol = None
                gc.collect()
            elif HOW == "remove":
                loop.remove_reader(left)
                loop.remove_signal_handler(signal.SIGUSR1)
                transport.abort()
                loop.run_until_complete(asyncio.sleep(0.01))
            else:
                loop.call_soon_threadsafe(print, "woken")
                loop.run_until_complete(asyncio.to_thread(print, "threads"))
            return 0

        assert status(fork(child)) == 0
        sys.stdout.flush()

        async def parent():
            right.send(b"reader")
            far.send(b"transport")
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(0.05)
            await asyncio.to_thread(int)

        loop.run_until_complete(parent())
        print(sorted(map(str, got)))
        transport.abort()
        loop.remove_reader(left)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        for sock in (left, right, far):
            sock.close()
        """.replace("HOW", repr(how)),
    )
    assert lines[:-1] == (["woken", "threads"] if how == "run" else [])
    assert lines[-1] == "[\"b'reader'\", \"b'transport'\", 'signal']"


def test_parent_and_child_run_the_same_loop(loop_kind: str) -> None:
    """What each watches and what wakes it is its own."""
    ours_only(loop_kind)
    assert fork_script(
        loop_kind,
        """
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0))

        async def main(name):
            near, far = socket.socketpair()
            near.setblocking(False)
            for i in range(200):
                far.send(b"x")
                assert await loop.sock_recv(near, 10) == b"x"
                await loop.run_in_executor(None, int)
            await asyncio.sleep(0.01)
            near.close()
            far.close()
            return 0

        def child():
            loop.run_until_complete(main("child"))
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            return 0

        pids = [fork(child) for _ in range(3)]
        loop.run_until_complete(main("parent"))
        print([status(pid) for pid in pids])
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        """,
    ) == ["[0, 0, 0]"]


def test_signals_are_for_one_process(loop_kind: str) -> None:
    """A signal to the child is not taken for one to the parent."""
    if loop_kind == "asyncio" and PY < (3, 12):
        pytest.skip("asyncio lets the child write to its parent's self-pipe")
    assert fork_script(
        loop_kind,
        """
        async def main():
            loop = asyncio.get_running_loop()
            seen = []
            loop.add_signal_handler(signal.SIGUSR1, seen.append, "parent")
            ready, told = os.pipe()

            def child():
                os.write(told, b"x")
                for _ in range(500):
                    time.sleep(0.01)
                return 1

            pid = fork(child)
            os.read(ready, 1)
            os.kill(pid, signal.SIGUSR1)
            await asyncio.sleep(0.1)
            assert seen == [], seen
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(0.05)
            os.kill(pid, signal.SIGKILL)
            print(seen, await asyncio.to_thread(status, pid))

        run(main())
        """,
    ) == ["['parent'] -9"]


def test_what_was_written_before_leaves_before_and_once(loop_kind: str) -> None:
    assert fork_script(
        loop_kind,
        """
        async def main():
            near, far = socket.socketpair()
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, near)
            sock = near.dup()

            def child():
                sock.send(b"child ")
                transport.abort()
                gc.collect()
                return 0

            transport.write(b"before ")
            pid = fork(child)
            assert status(pid) == 0
            transport.write(b"after")
            await asyncio.sleep(0.01)
            transport.close()
            await asyncio.sleep(0.01)
            sock.close()
            print(far.recv(100).decode())
            far.close()

        run(main())
        """,
    ) == ["before child after"]


def test_pre_fork_server(loop_kind: str) -> None:
    """Listen in the parent, make a loop in each child."""
    assert fork_script(
        loop_kind,
        """
        listener = socket.create_server(("127.0.0.1", 0))
        ready, serving = os.pipe()

        async def serve():
            async def answer(reader, writer):
                writer.write(b"%d" % os.getpid())
                writer.close()
                await writer.wait_closed()
            done = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
            server = await asyncio.start_server(answer, sock=listener)
            os.write(serving, b".")
            await done.wait()
            server.close()
            await server.wait_closed()
            return 0

        pids = [fork(lambda: run(serve())) for _ in range(3)]
        for _ in pids:
            os.read(ready, 1)
        answers = set()
        for _ in range(300):
            with socket.create_connection(listener.getsockname()) as client:
                answers.add(int(client.makefile().read()))
        assert answers and answers <= set(pids), (answers, pids)
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        print([status(pid) for pid in pids])
        listener.close()
        """,
    ) == ["[0, 0, 0]"]


def test_server_that_is_forked(loop_kind: str) -> None:
    """Loop and server made in the parent serve in the children."""
    ours_only(loop_kind)
    assert fork_script(
        loop_kind,
        """
        loop = new_loop()
        async def answer(reader, writer):
            writer.write(b"%d" % os.getpid())
            writer.close()
            await writer.wait_closed()
        server = loop.run_until_complete(
            asyncio.start_server(answer, "127.0.0.1", 0))
        address = server.sockets[0].getsockname()
        ready, serving = os.pipe()

        def child():
            loop.add_signal_handler(signal.SIGTERM, loop.stop)
            loop.call_soon(os.write, serving, b".")
            loop.run_forever()
            server.close()
            loop.run_until_complete(asyncio.sleep(0.05))
            loop.close()
            return 0

        pids = [fork(child) for _ in range(2)]
        for _ in pids:
            os.read(ready, 1)
        answers = set()
        for _ in range(200):
            with socket.create_connection(address) as client:
                answers.add(int(client.makefile().read()))
        assert answers <= set(pids), (answers, pids)
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        print([status(pid) for pid in pids])
        server.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        """,
    ) == ["[0, 0]"]


def test_fork_by_a_thread(loop_kind: str) -> None:
    """While the loop waits in its poller."""
    assert fork_script(
        loop_kind,
        """
        def child():
            async def inner():
                await asyncio.sleep(0.001)
                return 6
            return run(inner())

        async def main():
            for _ in range(20):
                pid = await asyncio.to_thread(fork, child)
                assert await asyncio.to_thread(status, pid) == 6
            print("all")

        run(main())
        """,
    ) == ["all"]


def test_child_of_a_child(loop_kind: str) -> None:
    assert fork_script(
        loop_kind,
        """
        async def deeper(depth):
            await asyncio.sleep(0.001)
            if depth == 0:
                return 1
            pid = fork(lambda: run(deeper(depth - 1)))
            await asyncio.sleep(0.001)
            return 1 + await asyncio.to_thread(status, pid)

        print(run(deeper(5)))
        """,
    ) == ["6"]


def test_descriptor_closed_without_a_word(loop_kind: str) -> None:
    ours_only(loop_kind)
    assert fork_script(
        loop_kind,
        """
        loop = new_loop()
        reading, writing = os.pipe()
        loop.add_reader(reading, print)
        loop.run_until_complete(asyncio.sleep(0.001))
        os.close(reading)

        def child():
            loop.run_until_complete(asyncio.sleep(0.01))
            loop.close()
            return 2

        print(status(fork(child)))
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        """,
    ) == ["2"]


def test_no_number_left_for_the_child(loop_kind: str) -> None:
    """With every descriptor in use a fork still works."""
    ours_only(loop_kind)
    assert fork_script(
        loop_kind,
        """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0))
        taken = []
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break

        def child():
            loop.call_soon_threadsafe(print, "child")
            loop.run_until_complete(asyncio.sleep(0.001))
            loop.close()
            return 8

        print(status(fork(child)))
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        """,
    ) == ["child", "8"]


def test_child_that_gets_no_poller(loop_kind: str) -> None:
    """Its loops cannot run then; nothing crashes, and the parent goes on."""
    ours_only(loop_kind)
    assert fork_script(
        loop_kind,
        """
        import resource
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.add_reader(loop._ssock.fileno(), print)

        def child():
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            number = 0
            try:
                loop.run_until_complete(asyncio.sleep(0))
            except OSError as exc:
                number = exc.errno
            task = asyncio.all_tasks(loop).pop()
            task.cancel()
            loop.close()
            other = new_loop()
            other.run_until_complete(asyncio.sleep(0.001))
            other.close()
            return number

        sys.unraisablehook = lambda args: None
        print(status(fork(child)))
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        """,
        quiet=False,
        first="""
        import os, resource
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        def starve():
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
        os.register_at_fork(after_in_child=starve)
        """,
    ) == ["24"]


def test_nothing_is_left_for_a_program_the_child_executes(loop_kind: str) -> None:
    assert fork_script(
        loop_kind,
        """
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0))
        def child():
            os.execv(sys.executable, [sys.executable, "-S", "-E", "-c",
                "import os; print(len(os.listdir('/proc/self/fd')))"])
        assert status(fork(child)) == 0
        loop.close()
        """,
    ) == ["4"]


def test_descriptors_of_the_child(loop_kind: str) -> None:
    """Closing the inherited loop closes all that it has there."""
    ours_only(loop_kind)
    assert fork_script(
        loop_kind,
        """
        def count():
            return len(os.listdir("/proc/self/fd"))
        new_loop().close()  # libuv keeps a pipe of its own for good
        before = count()
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0))
        open_ones = count()

        def child():
            assert count() == open_ones, (count(), open_ones)
            loop.run_until_complete(asyncio.sleep(0.001))
            assert count() == open_ones, (count(), open_ones)
            loop.close()
            assert count() == before, (count(), before)
            return 1

        print(status(fork(child)))
        loop.close()
        """,
    ) == ["1"]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(loop_kind: str, method: str, tmp_path: pathlib.Path) -> None:
    """Process pools of each kind, from inside a running loop."""
    script = tmp_path / "pool.py"
    script.write_text(
        textwrap.dedent(
            """
            import asyncio, concurrent.futures, multiprocessing, os, sys, warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            if os.environ["HOTLOOP_TEST_KIND"] == "hotloop":
                import hotloop
                new_loop = hotloop.new_event_loop
            else:
                new_loop = asyncio.SelectorEventLoop

            async def inner(number):
                await asyncio.sleep(0.001)
                return number * 2

            def work(number):
                with asyncio.Runner(loop_factory=new_loop) as runner:
                    return runner.run(inner(number))

            async def main():
                loop = asyncio.get_running_loop()
                context = multiprocessing.get_context(sys.argv[1])
                with concurrent.futures.ProcessPoolExecutor(
                    2, mp_context=context
                ) as pool:
                    calls = [loop.run_in_executor(pool, work, i) for i in range(6)]
                    print(await asyncio.gather(*calls))
                process = context.Process(target=work, args=(1,))
                process.start()
                await asyncio.to_thread(process.join)
                print(process.exitcode)

            if __name__ == "__main__":
                with asyncio.Runner(loop_factory=new_loop) as runner:
                    runner.run(main())
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script), method],
        env=script_env(loop_kind),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["[0, 2, 4, 6, 8, 10]", "0"]


def test_children_that_run_code_before_their_program(loop_kind: str) -> None:
    """preexec_fn forks as os.fork() does."""
    assert fork_script(
        loop_kind,
        """
        async def main():
            near, far = socket.socketpair()
            near.setblocking(False)
            loop = asyncio.get_running_loop()
            for i in range(10):
                process = await asyncio.create_subprocess_exec(
                    "sh", "-c", "echo $0", str(i), preexec_fn=os.getpid,
                    stdout=asyncio.subprocess.PIPE)
                out, _ = await process.communicate()
                assert out == b"%d\\n" % i
                far.send(b"x")
                assert await loop.sock_recv(near, 1) == b"x"
            near.close()
            far.close()
            print("done")

        run(main())
        """,
    ) == ["done"]
