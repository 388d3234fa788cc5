"""Dask's distributed: scheduler, workers and clients, in one loop and in processes."""

from __future__ import annotations

import contextlib
import pathlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from support import finish_script, run_script, script_env

# The programs of dask take their loop from the policy: a module that they are
# told to load first installs hotloop's.
INSTALL = """
import os
if os.environ["HOTLOOP_TEST_KIND"] == "hotloop":
    import hotloop
    hotloop.install()
"""

START = (
    INSTALL
    + """
import sys
sys.argv[0] = "dask"
from dask.__main__ import main
main()
"""
)

CLIENT = """
if KIND == "hotloop":
    hotloop.install()
import hashlib
from distributed import Client, as_completed, wait

def loop_of(dask_scheduler=None, dask_worker=None):
    server = dask_scheduler or dask_worker
    return type(server.loop.asyncio_loop).__module__.split(".")[0]

def data_of(number, size):
    seed = hashlib.sha256(b"%d" % number).digest()
    return seed * (size // len(seed))

def digest(data):
    return hashlib.sha256(data).hexdigest()

def slow(number, seconds=0.05):
    time.sleep(seconds)
    return number
"""


class Dask:
    """A scheduler or worker in a process of its own, and what it said."""

    def __init__(self, kind: str, folder: pathlib.Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", START, *words],
            cwd=folder,
            env=script_env(kind) | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "20s"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []

    def wait_for(self, pattern: str) -> str:
        """Read on until a line matches; the rest goes to a thread."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if match := re.search(pattern, line):
                drain = threading.Thread(target=self.drain, daemon=True)
                drain.start()
                self.drained = drain
                return match[1]
        raise AssertionError("".join(self.lines))

    def drain(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    def end(self) -> None:
        """SIGTERM, as service managers do; it must leave in an orderly way."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.drained.join()
            assert self.process.stderr is not None
            self.process.stderr.close()


@pytest.fixture
def cluster(loop_kind: str, tmp_path: pathlib.Path) -> Iterator[Any]:
    """A scheduler and two workers; gives the address and the workers."""
    scheduler_words = ["scheduler", "--host", "127.0.0.1", "--port", "0"]
    scheduler_words += ["--no-dashboard", "--no-show"]
    worker_words = ["--nthreads", "2", "--no-dashboard", "--no-nanny"]
    with contextlib.ExitStack() as stack:

        def start(*words: str) -> Dask:
            started = Dask(loop_kind, tmp_path, *words)
            stack.callback(started.end)
            return started

        scheduler = start(*scheduler_words)
        address = scheduler.wait_for(r"Scheduler at:\s+(tcp://\S+)")
        workers = [
            start("worker", address, *worker_words, "--name", f"w{number}")
            for number in range(2)
        ]
        for worker in workers:
            worker.wait_for(r"(Registered to)")
        yield address, workers


@pytest.mark.timeout(150)
def test_processes(loop_kind: str, cluster: Any) -> None:
    """Many tasks, big results, cancellation, and a worker that is killed."""
    address, workers = cluster
    client = (
        CLIENT
        + f"""
address = {address!r}
victim = {workers[0].process.pid}

def main():
    with Client(address) as client:
        client.wait_for_workers(2)
        assert client.run_on_scheduler(loop_of) == KIND
        assert set(client.run(loop_of).values()) == {{KIND}}
        assert client.loop.asyncio_loop.__class__.__module__.split(".")[0] == KIND
        first = client.map(lambda n: n + 1, range(400))
        second = client.map(lambda n: n * 2, first)
        total = client.submit(sum, second)
        print(total.result() == sum((n + 1) * 2 for n in range(400)))

        # Results that go from worker to worker and back here.
        parts = client.map(data_of, range(8), size=4 << 20, pure=False)
        names = client.map(digest, parts)
        joined = client.submit(b"".join, parts, workers="w1")
        assert client.gather(names) == [digest(p) for p in client.gather(parts)]
        wanted = digest(b"".join(data_of(n, 4 << 20) for n in range(8)))
        print(client.submit(digest, joined).result() == wanted)

        # What waits is cancelled, what goes on is not.
        waiting = client.map(slow, range(200), seconds=0.02)
        wait(waiting[:1])
        client.cancel(waiting[50:])
        kept = client.gather(waiting[:50])
        print(kept == list(range(50)), waiting[199].status)

        # A worker dies: what it had is computed again by the other one.
        held = client.map(data_of, range(20, 40), size=1 << 16)
        wait(held)
        running = client.map(slow, range(1000, 1040))
        os.kill(victim, signal.SIGKILL)
        assert client.gather(running) == list(range(1000, 1040))
        lost = client.map(digest, held)
        assert client.gather(lost) == [digest(data_of(n, 1 << 16))
                                       for n in range(20, 40)]
        print(len(client.scheduler_info()["workers"]))

if __name__ == "__main__":
    main()
"""
    )
    out, _ = run_script(loop_kind, client, quiet=False, timeout=80)
    assert out.splitlines() == ["True", "True", "True cancelled", "1"]
    assert workers[0].process.wait(10) == -signal.SIGKILL
    assert workers[1].process.poll() is None


def test_one_loop(loop_kind: str) -> None:
    """Scheduler, workers and client as coroutines of one loop."""
    out, _ = run_script(
        loop_kind,
        CLIENT
        + """
from distributed import LocalCluster, Lock, Queue, Variable

async def main():
    async with (
        LocalCluster(processes=False, n_workers=3, threads_per_worker=1,
                     dashboard_address=None, asynchronous=True) as cluster,
        Client(cluster, asynchronous=True) as client,
    ):
        assert client.loop.asyncio_loop is asyncio.get_running_loop()
        assert cluster.scheduler.loop.asyncio_loop is client.loop.asyncio_loop
        assert type(asyncio.get_running_loop()).__module__.split(".")[0] == KIND
        futures = client.map(lambda n: n ** 2, range(500))
        print(sum(await client.gather(futures)) == sum(n ** 2 for n in range(500)))
        seen = set()
        async for future in as_completed(client.map(slow, range(30), seconds=0.001)):
            seen.add(await future)
        print(seen == set(range(30)))

        async def wait_for(number):
            return await client.submit(slow, number, seconds=0.2)

        task = asyncio.create_task(wait_for(1))
        await asyncio.sleep(0.01)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            print("cancelled")
        [big] = await client.scatter([bytes(32 << 20)], broadcast=True)
        print(await client.submit(len, big))
        queue, variable = await Queue("q"), Variable("v")
        await queue.put(5)
        await variable.set(6)
        print(await queue.get(), await variable.get())
        async with Lock("lock"):
            pass
        try:
            await client.submit(lambda: 1 / 0)
        except ZeroDivisionError:
            print("raised")

run(main())
""",
        quiet=False,
        timeout=50,
    )
    assert out.splitlines() == [
        "True",
        "True",
        "cancelled",
        str(32 << 20),
        "5 6",
        "raised",
    ]


def test_cluster_in_threads(loop_kind: str) -> None:
    """The synchronous client: its loop runs in a thread."""
    out, _ = run_script(
        loop_kind,
        CLIENT
        + """
import dask
from distributed import LocalCluster

with LocalCluster(processes=False, n_workers=2, threads_per_worker=2,
                  dashboard_address=None) as cluster, Client(cluster) as client:
    assert type(client.loop.asyncio_loop).__module__.split(".")[0] == KIND

    @dask.delayed
    def add(left, right):
        return left + right

    values = [dask.delayed(n) for n in range(256)]
    while len(values) > 1:
        values = [add(*pair) for pair in zip(values[::2], values[1::2])]
    print(values[0].compute())
    futures = [client.submit(slow, n, seconds=0.001) for n in range(100)]
    print(sum(future.result() for future in as_completed(futures)))
    cluster.scale(4)
    client.wait_for_workers(4)
    print(len(client.run(loop_of)), set(client.run(loop_of).values()) == {KIND})
""",
        quiet=False,
        timeout=50,
    )
    assert out.splitlines() == [str(sum(range(256))), "4950", "4 True"]


def test_preload(loop_kind: str, tmp_path: pathlib.Path) -> None:
    """`dask scheduler --preload` loads the module before it makes its loop."""
    (tmp_path / "install.py").write_text(
        INSTALL
        + """
import asyncio
def dask_setup(server):
    print("loop:", type(asyncio.get_running_loop()).__module__, flush=True)
    server.loop.call_later(0, os.kill, os.getpid(), 15)
"""
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "dask"]
    command += ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    command += ["--no-show", "--preload", "install.py"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=script_env(loop_kind),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, out, err = finish_script(process)
    assert out.startswith(f"loop: {loop_kind}.") and "Traceback" not in err
