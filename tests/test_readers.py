"""add_reader, add_writer and their removal, on real descriptors."""

# mypy: disable-error-code="func-returns-value,no-untyped-call"

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
from typing import Any

import pytest

from support import connected, finish, reset, tcp_pair, turns, unix_pair, until

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="-")


def nothing(*args: Any) -> None:
    """A callback that must never run."""
    raise AssertionError(args)


@pytest.fixture(params=[unix_pair, tcp_pair], ids=["unix", "tcp"])
def pair(request: Any) -> Any:
    left, right = request.param()
    yield left, right
    left.close()
    right.close()


async def test_reader_gets_called_with_arguments(loop: Any, pair: Any) -> None:
    left, right = pair
    seen: list[Any] = []
    assert loop.add_reader(left, lambda *a: seen.append((a, left.recv(9))), 1, 2) is (
        None
    )
    right.send(b"one")
    await until(lambda: seen)
    assert seen == [((1, 2), b"one")]
    assert loop.remove_reader(left) is True
    assert loop.remove_reader(left) is False


async def test_writer_gets_called(loop: Any, pair: Any) -> None:
    left, _ = pair
    seen: list[int] = []
    assert loop.add_writer(left.fileno(), seen.append, 1) is None
    await until(lambda: len(seen) > 2)
    assert loop.remove_writer(left.fileno()) is True
    assert loop.remove_writer(left) is False
    count = len(seen)
    await turns(5)
    assert len(seen) == count


async def test_removing_what_was_never_added(loop: Any, pair: Any) -> None:
    left, _ = pair
    assert loop.remove_reader(left) is False
    assert loop.remove_writer(left) is False
    loop.add_reader(left, nothing)
    assert loop.remove_writer(left) is False
    assert loop.remove_reader(left) is True


async def test_keyword_names(loop: Any, pair: Any) -> None:
    left, _ = pair
    loop.add_reader(fd=left, callback=nothing)
    assert loop.remove_reader(fd=left) is True
    loop.add_writer(fd=left, callback=int)
    assert loop.remove_writer(fd=left) is True


async def test_level_triggered(loop: Any, pair: Any) -> None:
    left, right = pair
    seen: list[bytes] = []
    loop.add_reader(left, lambda: seen.append(left.recv(1)))
    right.send(b"abc")
    await until(lambda: len(seen) == 3)
    loop.remove_reader(left)
    assert seen == [b"a", b"b", b"c"]


async def test_replacing_a_reader(loop: Any, pair: Any) -> None:
    left, right = pair
    seen: list[str] = []
    loop.add_reader(left, nothing)
    loop.add_reader(left, lambda: seen.append("new") or left.recv(9))
    right.send(b"x")
    await until(lambda: seen)
    assert loop.remove_reader(left) is True
    assert loop.remove_reader(left) is False


async def test_replacing_between_event_and_callback(loop: Any, pair: Any) -> None:
    left, right = pair
    other_left, other_right = socket.socketpair()
    seen: list[str] = []

    def first() -> None:
        left.recv(9)
        seen.append("first")
        loop.add_reader(left, seen.append, "replaced")

    loop.add_reader(left, first)
    right.send(b"x")
    await until(lambda: seen)
    right.send(b"y")
    await until(lambda: len(seen) > 1)
    assert seen[:2] == ["first", "replaced"]
    loop.remove_reader(left)
    other_left.close()
    other_right.close()


async def test_reader_and_writer_on_one_descriptor(loop: Any, pair: Any) -> None:
    left, right = pair
    seen: list[str] = []
    loop.add_reader(left, lambda: seen.append("r") or left.recv(1))
    loop.add_writer(left, lambda: seen.append("w"))
    await until(lambda: "w" in seen)
    right.send(b"x")
    await until(lambda: "r" in seen)
    assert loop.remove_writer(left) is True
    seen.clear()
    right.send(b"y")
    await until(lambda: seen)
    assert seen == ["r"]
    assert loop.remove_reader(left) is True


async def test_reader_left_after_writer_went_and_back(loop: Any, pair: Any) -> None:
    left, right = pair
    seen: list[str] = []
    loop.add_writer(left, lambda: seen.append("w"))
    loop.add_reader(left, lambda: seen.append("r") or left.recv(1))
    assert loop.remove_reader(left) is True
    seen.clear()
    await until(lambda: seen)
    assert set(seen) == {"w"}
    assert loop.remove_writer(left) is True
    right.send(b"z")
    loop.add_reader(left, lambda: seen.append("again") or left.recv(1))
    await until(lambda: "again" in seen)
    loop.remove_reader(left)


async def test_reader_that_removes_itself(loop: Any, pair: Any) -> None:
    left, right = pair
    seen: list[Any] = []
    loop.add_reader(left, lambda: seen.append(loop.remove_reader(left)))
    right.send(b"x")
    await until(lambda: seen)
    await turns(5)
    assert seen == [True]


async def test_reader_that_removes_another_ready_one(loop: Any) -> None:
    pairs = [unix_pair() for _ in range(2)]
    seen: list[int] = []

    def callback(number: int) -> None:
        seen.append(number)
        for left, _ in pairs:
            loop.remove_reader(left)

    for number, (left, _) in enumerate(pairs):
        loop.add_reader(left, callback, number)
    for _, right in pairs:
        right.send(b"x")
    await turns(5)
    assert len(seen) == 1
    for left, right in pairs:
        left.close()
        right.close()


async def test_reader_that_closes_its_descriptor(loop: Any) -> None:
    left, right = unix_pair()
    seen: list[str] = []

    def callback() -> None:
        seen.append("ready")
        loop.remove_reader(left)
        left.close()

    loop.add_reader(left, callback)
    right.send(b"x")
    await until(lambda: seen)
    await turns(5)
    right.close()
    assert seen == ["ready"]


async def test_closed_then_reused_by_another_socket(loop: Any) -> None:
    left, right = unix_pair()
    number = left.fileno()
    loop.add_reader(number, nothing)
    left.close()
    right.close()
    await asyncio.sleep(0.005)
    spare, again = unix_pair()
    if spare.fileno() != number:
        os.dup2(spare.fileno(), number)
        spare.close()
        spare = socket.socket(fileno=number)
    assert loop.remove_reader(number) is True
    seen: list[bytes] = []
    loop.add_reader(number, lambda: seen.append(spare.recv(9)))
    again.send(b"new")
    await until(lambda: seen)
    assert seen == [b"new"]
    assert loop.remove_reader(number) is True
    spare.close()
    again.close()


async def test_remove_after_close_by_number(loop: Any) -> None:
    left, right = unix_pair()
    number = left.fileno()
    loop.add_reader(number, nothing)
    left.close()
    assert loop.remove_reader(number) is True
    assert loop.remove_reader(number) is False
    right.close()


async def test_bad_descriptors(loop: Any) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    for add in (loop.add_reader, loop.add_writer):
        with pytest.raises(OSError) as caught:
            add(writing, nothing)
        assert caught.value.errno == 9
        with pytest.raises(ValueError):
            add(-1, nothing)
        with pytest.raises(ValueError):
            add("text", nothing)
        with pytest.raises(ValueError):
            add(object(), nothing)
    assert loop.remove_reader(writing) is False
    with pytest.raises(ValueError):
        loop.remove_reader(-1)


async def test_closed_socket_object(loop: Any) -> None:
    sock = socket.socket()
    sock.close()
    with pytest.raises(ValueError):
        loop.add_reader(sock, nothing)
    with pytest.raises(ValueError):
        loop.remove_writer(sock)


async def test_regular_file(loop: Any, tmp_path: Any) -> None:
    with open(tmp_path / "file", "w+b") as file:
        for add in (loop.add_reader, loop.add_writer):
            with pytest.raises(PermissionError) as caught:
                add(file, nothing)
            assert caught.value.errno == 1
        assert loop.remove_reader(file) is False
        assert loop.remove_writer(file) is False


async def test_exception_in_a_reader(loop: Any, pair: Any, reports: Any) -> None:
    left, right = pair
    seen: list[str] = []

    def callback() -> None:
        seen.append("called")
        if len(seen) == 2:
            left.recv(9)
        raise OSError("reader")

    loop.add_reader(left, callback)
    right.send(b"x")
    await until(lambda: len(seen) >= 2)
    await turns(3)
    assert loop.remove_reader(left) is True
    found = reports.take()
    assert len(found) == 2
    for report in found:
        assert report["message"].startswith("Exception in callback ")
        assert str(report["exception"]) == "reader"
        assert isinstance(report["handle"], asyncio.Handle)


async def test_context_of_a_reader(loop: Any, pair: Any) -> None:
    left, right = pair
    seen: list[str] = []
    VAR.set("at add")
    loop.add_reader(left, lambda: seen.append(VAR.get()) or left.recv(9))
    VAR.set("later")
    right.send(b"x")
    await until(lambda: seen)
    loop.remove_reader(left)
    assert seen == ["at add"]


async def test_reader_runs_as_a_callback_of_its_own(loop: Any, pair: Any) -> None:
    left, right = pair
    seen: list[str] = []

    def callback() -> None:
        left.recv(9)
        loop.call_soon(seen.append, "soon")
        seen.append("reader")
        loop.remove_reader(left)

    loop.add_reader(left, callback)
    right.send(b"x")
    await until(lambda: len(seen) == 2)
    assert seen == ["reader", "soon"]


async def test_many_descriptors(loop: Any) -> None:
    pairs = [unix_pair() for _ in range(300)]
    seen: set[int] = set()

    def callback(number: int) -> None:
        pairs[number][0].recv(9)
        seen.add(number)

    for number, (left, _) in enumerate(pairs):
        loop.add_reader(left, callback, number)
    for _, right in pairs:
        right.send(b"x")
    await until(lambda: len(seen) == 300)
    for left, right in pairs:
        assert loop.remove_reader(left) is True
        left.close()
        right.close()


async def test_descriptor_of_a_transport(loop: Any) -> None:
    transport, _, peer = await connected()
    fd = transport.get_extra_info("socket").fileno()
    for name in ("add_reader", "add_writer"):
        with pytest.raises(RuntimeError) as caught:
            getattr(loop, name)(fd, nothing)
        text = str(caught.value)
        assert text.startswith(f"File descriptor {fd!r} is used by transport ")
    for name in ("remove_reader", "remove_writer"):
        with pytest.raises(RuntimeError, match="is used by transport"):
            getattr(loop, name)(fd)
    await finish(transport, peer)


async def test_descriptor_of_a_transport_through_the_socket(loop: Any) -> None:
    transport, _, peer = await connected()
    sock = transport.get_extra_info("socket")
    for call in (
        lambda: loop.add_reader(sock, nothing),
        lambda: loop.sock_recv(sock._sock, 10).send(None),
    ):
        with pytest.raises(RuntimeError, match="is used by transport"):
            call()
    await finish(transport, peer)


async def test_reset_by_the_peer_wakes_the_reader(loop: Any) -> None:
    left, right = tcp_pair()
    errors: list[Any] = []

    def callback() -> None:
        try:
            errors.append(left.recv(9))
        except OSError as error:
            errors.append(error)
        loop.remove_reader(left)

    loop.add_reader(left, callback)
    reset(right)
    await until(lambda: errors)
    assert isinstance(errors[0], ConnectionResetError)
    left.close()


async def test_reset_repeats_until_removed(loop: Any) -> None:
    left, right = tcp_pair()
    calls: list[int] = []
    loop.add_reader(left, calls.append, 1)
    reset(right)
    await until(lambda: len(calls) >= 3)
    assert loop.remove_reader(left) is True
    left.close()


async def test_end_of_stream_wakes_the_reader(loop: Any, pair: Any) -> None:
    left, right = pair
    seen: list[bytes] = []
    loop.add_reader(left, lambda: seen.append(left.recv(9)))
    right.close()
    await until(lambda: len(seen) >= 2)
    loop.remove_reader(left)
    assert set(seen) == {b""}


async def test_refused_connect_wakes_the_writer(loop: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
    sock = socket.socket()
    sock.setblocking(False)
    seen: list[int] = []
    error = sock.connect_ex(address)
    if error == 115:
        loop.add_writer(
            sock,
            lambda: seen.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)),
        )
        await until(lambda: seen)
        loop.remove_writer(sock)
        error = seen[0]
    assert error == 111
    sock.close()


@pytest.mark.parametrize("blocking", [True, False])
async def test_blocking_flag_is_left_alone(loop: Any, blocking: bool) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, blocking)
    seen: list[bytes] = []
    loop.add_reader(reading, lambda: seen.append(os.read(reading, 9)))
    assert os.get_blocking(reading) is blocking
    os.write(writing, b"x")
    await until(lambda: seen)
    assert os.get_blocking(reading) is blocking
    loop.remove_reader(reading)
    assert os.get_blocking(reading) is blocking
    os.close(reading)
    os.close(writing)


async def test_pipes_and_descriptor_objects(loop: Any) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as file:
        seen: list[bytes] = []
        loop.add_reader(file, lambda: seen.append(file.read(9)))
        os.write(writing, b"pipe")
        await until(lambda: seen)
        assert seen == [b"pipe"]
        assert loop.remove_reader(file.fileno()) is True
    os.close(writing)


def test_close_with_readers_leaves_descriptors_open(new_loop: Any) -> None:
    loop = new_loop()
    left, right = unix_pair()
    loop.add_reader(left, nothing)
    loop.add_writer(right, nothing)
    loop.close()
    left.send(b"still open")
    assert right.recv(99) == b"still open"
    left.close()
    right.close()


def test_two_loops_watch_one_descriptor(new_loop: Any) -> None:
    first, second = new_loop(), new_loop()
    left, right = unix_pair()
    seen: list[int] = []
    first.add_reader(left, lambda: seen.append(1))
    second.add_reader(left, lambda: seen.append(2))
    right.send(b"x")
    for loop in (first, second):
        loop.run_until_complete(turns(3))
    assert {1, 2} <= set(seen)
    for loop in (first, second):
        assert loop.remove_reader(left) is True
        loop.close()
    left.close()
    right.close()
