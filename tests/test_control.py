"""The control socket: what it answers, to whom, and what it leaves alone."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from support import collect, settle, turns, until, wanted_kinds
from watching import folder

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

import hotloop
from hotloop import control
from hotloop.control import Client, ControlError, _server

__all__ = ["folder"]  # the fixture


@pytest.fixture
def watched(folder: str) -> Iterator[Any]:
    """A loop with a control socket."""
    loop = hotloop.new_event_loop()
    control.serve(loop)
    yield loop
    loop.close()


@pytest.fixture
def client(watched: Any) -> Iterator[Client]:
    """Asks that loop."""
    with Client(watched._control.path) as made:
        yield made


def raw(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(path)
    return sock


def line(sock: socket.socket) -> bytes:
    got = b""
    while not got.endswith(b"\n"):
        data = sock.recv(65536)
        if not data:
            break
        got += data
    return got


def ended(sock: socket.socket) -> bool:
    """Read to the end of what is there; True if it is an end."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


# ---- what it answers ----


def test_about(watched: Any, client: Client) -> None:
    about = client.ask("about")
    assert about["pid"] == os.getpid() and about["protocol"] == 1
    assert about["path"] == client.path == watched._control.path
    assert about["hotloop"] == hotloop.__version__
    assert (about["running"], about["thread"]) == (False, None)

    async def main() -> Any:
        return client.ask("about")

    about = watched.run_until_complete(main())
    assert (about["running"], about["thread"]) == (True, "MainThread")


def test_metrics_are_the_loops(watched: Any, client: Client) -> None:
    async def main() -> None:
        await turns(10)

    watched.run_until_complete(main())
    mine = watched.metrics()
    told = hotloop.Metrics.from_dict(client.ask("metrics"))
    assert told.enabled and told.turns == mine.turns >= 10
    assert told.lag == mine.lag


async def pauses(future: Any) -> None:
    await inner(future)


async def inner(future: Any) -> None:
    await future  # here


HERE = inner.__code__.co_firstlineno + 1


def test_tasks(watched: Any, client: Client) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        several = [loop.create_task(pauses(future), name=f"p{n}") for n in range(3)]
        waiter = loop.create_task(pauses(several[0]), name="of a task")
        reader = hotloop.StreamReader()
        reading = loop.create_task(reader.read(1), name="reading")
        await turns(2)
        fresh = loop.create_task(pauses(future), name="fresh")
        answer, few = client.ask("tasks"), client.ask("tasks", limit=2)
        reader.feed_eof()
        future.set_result(None)
        await asyncio.gather(*several, waiter, reading, fresh)
        return answer, few

    answer, few = watched.run_until_complete(main())
    assert answer["count"] == answer["seen"] == 7
    tasks = {task["name"]: task for task in answer["tasks"]}
    assert len(tasks) == 7
    first = tasks["p0"]
    assert (first["coroutine"], first["state"]) == ("pauses", "waiting")
    assert first["waits_for"] == "Future"
    assert [frame["function"] for frame in first["stack"]] == ["pauses", "inner"]
    assert first["stack"][-1]["file"] == __file__
    assert first["stack"][-1]["line"] == HERE
    assert tasks["of a task"]["waits_for"] == "Task p0"
    assert tasks["reading"]["waits_for"] == "Future"
    assert (tasks["fresh"]["state"], tasks["fresh"]["waits_for"]) == ("ready", "")
    states = [task["state"] for task in answer["tasks"]]
    assert states.count("running") == 1
    place = {"file": __file__, "line": HERE, "function": "inner"}
    assert first | place == first
    assert answer["groups"][0] == {"count": 4, "coroutine": "pauses", **place}
    assert (few["count"], len(few["tasks"]), len(few["groups"])) == (7, 2, 2)


def test_a_blocked_loop_is_seen(watched: Any, client: Client) -> None:
    goes_on, answers = threading.Event(), []

    def ask() -> None:
        answers.append([client.ask(name) for name in ("stacks", "metrics", "tasks")])
        goes_on.set()

    def blocks() -> None:
        thread.start()
        assert goes_on.wait(30)
        watched.stop()

    thread = threading.Thread(target=ask, name="asking")
    watched.call_soon(blocks)
    watched.run_forever()
    thread.join()
    stacks, metrics, tasks = answers[0]
    assert stacks[0]["loop"] and stacks[0]["thread"] == "MainThread"
    # What the loop calls, without what called the loop.
    functions = [frame["function"] for frame in stacks[0]["stack"]]
    assert functions[0].endswith("blocks") and "Event.wait" in functions
    assert "asking" in {thread["thread"] for thread in stacks[1:]}
    assert "hotloop-control" not in {thread["thread"] for thread in stacks}
    assert metrics["running"] and tasks["count"] == 0


def test_profile_while_a_client_wants_it(watched: Any) -> None:
    path = watched._control.path

    async def main() -> None:
        with Client(path) as one, Client(path) as two:
            assert one.ask("profile")["profiling"] is False
            assert one.ask("enable_profile") is True
            assert two.ask("enable_profile", on=True) is True
            await asyncio.create_task(turns(5))
            entries = one.ask("profile")["entries"]
            assert "turns" in {entry["name"] for entry in entries}
            assert len(one.ask("profile", limit=1)["entries"]) == 1
            assert one.ask("enable_profile", on=False) is True  # two wants it
        await until(lambda: not watched.metrics().profiling)
        assert watched.metrics().enabled
        watched.enable_metrics(profile=True)
        with Client(path) as three:
            assert three.ask("enable_profile") is True
            assert three.ask("enable_profile", on=False) is True  # the program's
        with Client(path) as four:
            four.ask("about")
        assert watched.metrics().profiling

    watched.run_until_complete(main())


# ---- bad requests, slow clients ----

BAD = {
    b"nonsense": "not JSON",
    b"\xff\xfe": "not JSON",
    b"": "not JSON",
    b"[" * 2000: "not JSON",
    b"[1]": "not an object",
    b"{}": "unknown request 'None'",
    b'{"request": "format"}': "unknown request 'format'; known: about",
    b'{"request": ["about"]}': "unknown request",
    b'{"request": "about", "what": 1}': "unknown argument 'what'",
    b'{"request": "tasks", "limit": "9"}': "'limit' must be a number",
    b'{"request": "tasks", "limit": true}': "'limit' must be a number",
    b'{"request": "tasks", "limit": 1001}': "from 0 to 1000",
    b'{"request": "tasks", "limit": -1}': "from 0 to 1000",
    b'{"request": "enable_profile", "on": 3}': "'on' must be",
}


def test_bad_requests(watched: Any) -> None:
    with raw(watched._control.path) as sock:
        for request, said in BAD.items():
            sock.sendall(request + b"\n")
            answer = json.loads(line(sock))
            assert list(answer) == ["error"] and said in answer["error"], request
        sock.sendall(b'{"request": "about"}\n')
        assert "ok" in json.loads(line(sock))
    with raw(watched._control.path) as sock:
        sock.sendall(b"x" * 5000)
        assert "too long" in json.loads(line(sock))["error"]
        assert ended(sock)


def test_requests_in_pieces_and_at_once(watched: Any) -> None:
    request = b'{"request": "about"}\n'
    with raw(watched._control.path) as sock:
        for byte in request:
            sock.sendall(bytes([byte]))
        assert "ok" in json.loads(line(sock))
        with sock.makefile() as file:
            sock.sendall(request * 50)
            for _ in range(50):
                assert "ok" in json.loads(file.readline())
            sock.sendall(request * 50)
            sock.shutdown(socket.SHUT_WR)
            assert len([json.loads(text)["ok"] for text in file]) == 50


def test_the_thread_sees_the_end_before_it_is_woken(watched: Any) -> None:
    server = watched._control._server

    class Wake:
        real = server._wake

        def send(self, data: bytes) -> int:
            with raw(watched._control.path):
                server._thread.join()
            return self.real.send(data)

        def close(self) -> None:
            self.real.close()

    server._wake = Wake()
    watched._control.close()
    assert not server._thread.is_alive()


def test_an_answer_that_fails(watched: Any, client: Client, monkeypatch: Any) -> None:
    def fails(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(control._answers._tasks, "tasks", fails)
    with pytest.raises(ControlError, match="the answer failed: ValueError: broken"):
        client.ask("tasks")
    assert client.ask("about")


def test_slow_clients_are_dropped(watched: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(_server, "PATIENCE", 0.2)
    path = watched._control.path
    server = watched._control._server
    with raw(path) as begins, raw(path) as deaf, Client(path) as good:
        begins.sendall(b'{"request":')
        deaf.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                deaf.send(b'{"request": "stacks"}\n')
        assert good.ask("about")
        assert ended(begins)
        while len(server._clients) > 1:
            assert good.ask("about")  # all the time
        sizes = [len(each.received) for each in server._clients.values()]
        assert max(sizes) <= 2 * _server.LONGEST_REQUEST


def test_many_clients(watched: Any) -> None:
    path = watched._control.path
    clients = [Client(path) for _ in range(_server.MOST_CLIENTS)]
    for each in [*clients, clients[0]]:
        assert each.ask("about")
    with Client(path) as another:
        assert another.ask("about")
        assert clients[0].ask("about")  # the one that asked last stays
        with pytest.raises(ConnectionResetError):
            clients[1].ask("about")
    for each in clients:
        each.close()


# ---- its life ----


def test_it_is_closed_with_its_loop(folder: str) -> None:
    threads = threading.active_count()
    loop = hotloop.new_event_loop()
    path = control.serve(loop).path
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    with Client(path) as client:
        assert client.ask("about")["path"] == path
        loop.close()
        with pytest.raises(ConnectionResetError):
            client.ask("about")
    assert not os.path.exists(path) and threading.active_count() == threads
    assert loop._control is not None and loop._control.closed
    loop._control.close()
    with pytest.raises(FileNotFoundError):
        Client(path)


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_it_does_not_keep_the_loop(folder: str) -> None:
    loop = hotloop.new_event_loop()
    path = control.serve(loop).path
    with Client(path) as client:
        for name in ("about", "metrics", "tasks", "stacks", "profile"):
            client.ask(name)
        gone = weakref.ref(loop)
        del loop
        collect()
        assert gone() is None
        with pytest.raises((ConnectionResetError, ControlError)):
            client.ask("about")
    assert not os.path.exists(path)


def test_it_leaves_nothing_behind(watched: Any, client: Client) -> None:
    async def nothing() -> None:
        pass

    async def main() -> None:
        await asyncio.create_task(nothing())
        for _ in range(3):
            client.ask("tasks")
        await settle()
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(200):
            for name in ("about", "metrics", "tasks", "stacks", "profile"):
                client.ask(name)
        gc.collect()
        assert len(gc.get_objects()) < before + 100

    watched.run_until_complete(main())


def test_closing_it_by_itself(watched: Any) -> None:
    with control.serve(watched) as mine:
        assert mine is watched._control and not mine.closed
    assert mine.closed and not os.path.exists(mine.path)
    again = control.serve(watched)
    assert again is not mine and not again.closed
    # A file of the same name that another has made meanwhile is not ours to remove.
    os.unlink(again.path)
    with open(again.path, "w"):
        pass
    again.close()
    assert os.path.exists(again.path)


def test_serving_twice(watched: Any, folder: str) -> None:
    assert control.serve(watched) is watched._control
    assert control.serve(watched, path=watched._control.path) is watched._control
    with pytest.raises(RuntimeError, match="has a control socket already"):
        control.serve(watched, path=os.path.join(folder, "other"))


def test_what_cannot_be_served(folder: str) -> None:
    stock = asyncio.SelectorEventLoop()
    with pytest.raises(TypeError, match=r"a hotloop\.Loop was expected"):
        control.serve(stock)
    stock.close()
    loop = hotloop.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        control.serve(loop)
    with pytest.raises(RuntimeError, match="no running event loop"):
        control.serve()
    assert not os.path.exists(os.path.join(folder, "hotloop"))


def test_run_with_control(folder: str) -> None:
    async def main() -> str:
        mine = control.serve()
        with Client(mine.path) as client:
            assert client.ask("about")["running"] is True
        return mine.path

    path = hotloop.run(main(), control=True)
    assert path == os.path.join(folder, "hotloop", f"{os.getpid()}-1.sock")
    path = os.path.join(folder, "named")
    assert hotloop.run(main(), control=path) == path
    assert not os.path.exists(path)
    coroutine = main()
    with pytest.raises(TypeError):
        hotloop.run(coroutine, control=True, loop_factory=asyncio.SelectorEventLoop)
    coroutine.close()
