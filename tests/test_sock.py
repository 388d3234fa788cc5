"""sock_recv(), sock_sendall() and their like on real sockets, on both loops."""

from __future__ import annotations

import array
import asyncio
import contextlib
import inspect
import os
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from support import collect, open_fds, reset, tcp_pair, turns, unix_pair, until

CALLS = (
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendto",
    "sock_connect",
    "sock_accept",
    "sock_sendfile",
)


@pytest.fixture(params=["tcp", "unix"])
def pair(request: Any) -> Iterator[Any]:
    """Two connected sockets."""
    left, right = {"tcp": tcp_pair, "unix": unix_pair}[request.param]()
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def peers() -> Iterator[Any]:
    """Two UDP sockets."""
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(2):
            sock = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
            socks.append(sock)
        yield socks


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes no more."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += sock.send(b"\0" * 65536)
    return sent


async def test_they_are_coroutine_functions(loop: Any, pair: Any) -> None:
    left, _ = pair
    left.send(b"")
    for name in CALLS:
        method = getattr(loop, name)
        assert inspect.iscoroutinefunction(method)
        ours = inspect.signature(method)
        reference = inspect.signature(getattr(asyncio.SelectorEventLoop, name))
        assert list(ours.parameters) == list(reference.parameters)[1:]
    coro = loop.sock_recv(left, 10)
    assert asyncio.iscoroutine(coro) and inspect.iscoroutine(coro)
    coro.close()


async def test_a_call_never_awaited_warns(loop: Any, pair: Any) -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        loop.sock_recv(pair[0], 10)
        collect()
    assert [w.category for w in found] == [RuntimeWarning]


async def test_errors_come_when_awaited(loop: Any, pair: Any) -> None:
    coros = [
        (loop.sock_recv(None, 10), AttributeError),
        (loop.sock_recv(pair[0], "x"), TypeError),
        (loop.sock_recv(pair[0], -1), ValueError),
        (loop.sock_recv(pair[0], 1.5), TypeError),
        (loop.sock_recv_into(pair[0], b"constant"), TypeError),
        (loop.sock_recv_into(pair[0], 5), TypeError),
        (loop.sock_recvfrom(pair[0], -1), ValueError),
        (loop.sock_recvfrom_into(pair[0], bytearray(3), 4), ValueError),
        (loop.sock_recvfrom_into(pair[0], bytearray(3), -1), ValueError),
        (loop.sock_sendall(pair[0], "text"), TypeError),
        (loop.sock_sendall(pair[0], None), TypeError),
        (loop.sock_sendto(pair[0], b"", None), TypeError),
    ]
    for coro, error in coros:
        with pytest.raises(error):
            await coro


async def test_too_much_to_ask_for(loop: Any, pair: Any) -> None:
    for size in (1 << 64, (1 << 63) - 1):
        with pytest.raises((MemoryError, OverflowError)):
            await loop.sock_recv(pair[0], size)


async def test_receiving_at_once_makes_no_turn(loop: Any, pair: Any) -> None:
    left, right = pair
    right.send(b"here")
    coro = loop.sock_recv(left, 10)
    with pytest.raises(StopIteration) as caught:
        coro.send(None)
    assert caught.value.value == b"here"


@pytest.mark.parametrize("size", [1, 100, 1 << 18, (1 << 18) + 1, 1 << 21])
async def test_receiving_later(loop: Any, pair: Any, size: int) -> None:
    left, right = pair
    task = asyncio.create_task(loop.sock_recv(left, size))
    await turns(2)
    right.send(b"y" * 100)
    data = await task
    assert type(data) is bytes
    assert data == b"y" * min(size, 100)


async def test_many_rounds_on_one_socket(loop: Any, pair: Any) -> None:
    left, right = pair

    async def echo() -> None:
        while data := await loop.sock_recv(left, 100):
            await loop.sock_sendall(left, data)

    task = asyncio.create_task(echo())
    for number in range(200):
        message = b"%d" % number
        await loop.sock_sendall(right, message)
        if number % 3 == 0:
            await turns(number % 5)
        assert await loop.sock_recv(right, 100) == message
    right.close()
    await task


async def test_reading_and_writing_at_the_same_time(loop: Any, pair: Any) -> None:
    left, right = pair
    data = os.urandom(3_000_000)

    async def read(sock: socket.socket) -> bytes:
        got = bytearray()
        while len(got) < len(data):
            got += await loop.sock_recv(sock, 50_000)
        return bytes(got)

    results = await asyncio.gather(
        read(left),
        read(right),
        loop.sock_sendall(left, data),
        loop.sock_sendall(right, data),
    )
    assert results == [data, data, None, None]
    assert loop._selector.get_map().get(left.fileno()) is None


async def test_zero_bytes(loop: Any, pair: Any) -> None:
    left, _ = pair
    assert await loop.sock_recv(left, 0) == b""
    assert await loop.sock_recv_into(left, bytearray()) == 0
    assert await loop.sock_sendall(left, b"") is None
    fill(left)
    assert await loop.sock_sendall(left, bytearray()) is None


async def test_end_of_stream(loop: Any, pair: Any) -> None:
    left, right = pair
    task = asyncio.create_task(loop.sock_recv(left, 10))
    await turns(2)
    right.close()
    assert await task == b""
    assert await loop.sock_recv(left, 10) == b""
    assert await loop.sock_recv_into(left, bytearray(9)) == 0


async def test_receiving_into_buffers(loop: Any, pair: Any) -> None:
    left, right = pair
    whole = bytearray(10)
    for buffer in (whole, memoryview(whole)[2:5], array.array("i", [0] * 4)):
        task = asyncio.create_task(loop.sock_recv_into(left, buffer))
        await turns(2)
        right.send(b"abc")
        assert await task == 3
        assert bytes(memoryview(buffer).cast("B"))[:3] == b"abc"
    with pytest.raises((BufferError, TypeError)):
        await loop.sock_recv_into(left, memoryview(whole)[::2])


async def test_a_buffer_waited_for_may_be_resized(loop: Any, pair: Any) -> None:
    left, right = pair
    buffer = bytearray(10)
    task = asyncio.create_task(loop.sock_recv_into(left, buffer))
    await turns(2)
    buffer.extend(bytes(10))  # nothing holds it
    right.send(b"x" * 20)
    assert await task == 20


async def test_data_being_sent_may_not_be_resized(loop: Any) -> None:
    left, right = unix_pair()
    data = bytearray(3_000_000)
    task = asyncio.create_task(loop.sock_sendall(left, data))
    await turns(2)
    with pytest.raises(BufferError):
        data.append(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    del task
    collect()
    data.append(1)
    left.close()
    right.close()


async def test_sending_arrays_counts_bytes(loop: Any, loop_kind: str) -> None:
    if loop_kind == "asyncio":
        pytest.skip("asyncio counts items and waits for ever")
    left, right = unix_pair()
    numbers = array.array("i", range(400_000))
    task = asyncio.create_task(loop.sock_sendall(left, numbers))
    got = bytearray()
    while len(got) < 1_600_000:
        got += await loop.sock_recv(right, 1 << 20)
    await asyncio.wait_for(task, 10)
    assert got == numbers.tobytes()
    left.close()
    right.close()


async def test_sending_what_is_not_contiguous(loop: Any, pair: Any) -> None:
    with pytest.raises(BufferError):
        await loop.sock_sendall(pair[0], memoryview(bytes(10))[::2])


async def test_the_peer_resets(loop: Any) -> None:
    left, right = tcp_pair()
    task = asyncio.create_task(loop.sock_recv(left, 10))
    await turns(2)
    reset(right)
    with pytest.raises(ConnectionResetError):
        await task
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await loop.sock_sendall(left, b"x")
    left.close()


async def test_the_peer_goes_while_we_send(loop: Any) -> None:
    left, right = unix_pair()
    task = asyncio.create_task(loop.sock_sendall(left, bytes(5_000_000)))
    await turns(3)
    right.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await task
    left.close()


async def test_closed_sockets(loop: Any) -> None:
    left, right = unix_pair()
    left.close()
    coros = [
        loop.sock_recv(left, 10),
        loop.sock_recv_into(left, bytearray(9)),
        loop.sock_recvfrom(left, 10),
        loop.sock_recvfrom_into(left, bytearray(9)),
        loop.sock_sendall(left, b"x"),
        loop.sock_accept(left),
    ]
    for coro in coros:
        with pytest.raises(OSError) as caught:
            await coro
        assert caught.value.errno == 9
    right.close()


@pytest.mark.parametrize("what", ["recv", "sendall", "accept"])
async def test_closing_while_waiting(loop: Any, what: str) -> None:
    """The kernel forgets the descriptor, and nobody is told, as in asyncio."""
    left, right = unix_pair()
    if what == "recv":
        task = asyncio.create_task(loop.sock_recv(left, 10))
    elif what == "sendall":
        task = asyncio.create_task(loop.sock_sendall(left, bytes(9_000_000)))
    else:
        left.close()
        left = socket.create_server(("127.0.0.1", 0))
        left.setblocking(False)
        task = asyncio.create_task(loop.sock_accept(left))
    await turns(2)
    number = left.fileno()
    left.close()
    await turns(3)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert loop._selector.get_map().get(number) is None
    right.close()


async def test_closed_by_another_thread(loop: Any, loop_kind: str) -> None:
    if loop_kind == "asyncio":
        pytest.skip("asyncio does not notice that the number is another file's")
    left, right = unix_pair()
    task = asyncio.create_task(loop.sock_recv(left, 10))
    await turns(2)
    thread = threading.Thread(target=left.close)
    thread.start()
    thread.join()
    spare, other = unix_pair()  # one of them has the number now
    receiving = asyncio.create_task(loop.sock_recv(spare, 10))
    await turns(2)
    other.send(b"mine")
    assert await receiving == b"mine"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for sock in (right, spare, other):
        sock.close()


async def test_a_second_wait_replaces_the_first(loop: Any, pair: Any) -> None:
    left, right = pair
    first = asyncio.create_task(loop.sock_recv(left, 10))
    await turns(2)
    second = asyncio.create_task(loop.sock_recv(left, 10))
    await turns(2)
    right.send(b"one")
    assert await second == b"one"
    await turns(3)
    assert not first.done()
    first.cancel()
    third = asyncio.create_task(loop.sock_recv(left, 10))
    await asyncio.gather(first, return_exceptions=True)
    right.send(b"two")
    assert await third == b"two"


async def test_cancelling_the_first_leaves_the_second(loop: Any, pair: Any) -> None:
    left, right = pair
    first = asyncio.create_task(loop.sock_recv(left, 10))
    await turns(2)
    second = asyncio.create_task(loop.sock_recv(left, 10))
    await turns(2)
    first.cancel()
    await turns(3)
    right.send(b"one")
    assert await second == b"one"


async def test_a_reader_takes_the_place_of_a_wait(loop: Any, pair: Any) -> None:
    left, right = pair
    task = asyncio.create_task(loop.sock_recv(left, 10))
    await turns(2)
    assert loop._selector.get_map()[left.fileno()].events == 1
    seen: list[bytes] = []
    loop.add_reader(left, lambda: seen.append(left.recv(9)))
    right.send(b"x")
    await until(lambda: seen)
    task.cancel()
    await turns(3)
    assert loop.remove_reader(left) is True
    assert loop.remove_reader(left) is False


async def test_remove_reader_ends_a_wait(loop: Any, pair: Any) -> None:
    left, right = pair
    task = asyncio.create_task(loop.sock_recv(left, 10))
    await turns(2)
    assert loop.remove_reader(left) is True
    right.send(b"x")
    await turns(5)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await loop.sock_recv(left, 10) == b"x"


async def test_sockets_of_tls_are_refused(loop: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    left, right = socket.socketpair()
    with context.wrap_socket(left, do_handshake_on_connect=False) as wrapped:
        coros = [
            loop.sock_recv(wrapped, 1),
            loop.sock_recv_into(wrapped, bytearray(1)),
            loop.sock_recvfrom(wrapped, 1),
            loop.sock_recvfrom_into(wrapped, bytearray(1)),
            loop.sock_sendall(wrapped, b""),
            loop.sock_sendto(wrapped, b"", None),
            loop.sock_connect(wrapped, None),
            loop.sock_accept(wrapped),
        ]
        for coro in coros:
            with pytest.raises(TypeError, match="SSLSocket"):
                await coro
    right.close()


class Loud(socket.socket):
    """Shouts what it receives."""

    def recv(self, *args: Any) -> bytes:
        return super().recv(*args).upper()

    def send(self, data: Any, *args: Any) -> int:
        return super().send(bytes(data).lower(), *args)


async def test_methods_of_subclasses_are_called(loop: Any) -> None:
    left, right = unix_pair()
    loud = Loud(fileno=left.detach())
    loud.setblocking(False)
    task = asyncio.create_task(loop.sock_recv(loud, 10))
    await turns(2)
    right.send(b"quiet")
    assert await task == b"QUIET"
    await loop.sock_sendall(loud, b"LOUD")
    assert right.recv(10) == b"loud"
    loud.close()
    right.close()


async def test_timeouts_of_sockets_count(loop: Any) -> None:
    left, right = unix_pair()
    left.settimeout(0.01)
    with pytest.raises(TimeoutError):
        await loop.sock_recv(left, 10)
    left.close()
    right.close()


async def test_datagrams(loop: Any, peers: Any) -> None:
    near, far = peers
    for message in (b"one", b"", b"z" * 60_000):
        task = asyncio.create_task(loop.sock_recvfrom(far, 65536))
        await turns(2)
        assert await loop.sock_sendto(near, message, far.getsockname()) == len(message)
        assert await task == (message, near.getsockname())
    buffer = bytearray(10)
    for size, expected in ((0, b"abcdef"), (4, b"abcd")):
        task = asyncio.create_task(loop.sock_recvfrom_into(far, buffer, size))
        await turns(2)
        await loop.sock_sendto(near, memoryview(b"abcdef"), far.getsockname())
        assert await task == (len(expected), near.getsockname())
        assert buffer[: len(expected)] == expected


async def test_datagrams_of_ipv6(loop: Any) -> None:
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(2):
            sock = stack.enter_context(
                socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            )
            sock.setblocking(False)
            try:
                sock.bind(("::1", 0))
            except OSError:
                pytest.skip("no IPv6")
            socks.append(sock)
        near, far = socks
        port = far.getsockname()[1]
        for address in (("::1", port), ("::1", port, 0), ("::1", port, 0, 0)):
            await loop.sock_sendto(near, b"six", address)
            assert await loop.sock_recvfrom(far, 9) == (b"six", near.getsockname())
        with pytest.raises(OverflowError):
            await loop.sock_sendto(near, b"six", ("::1", port, 1 << 21, 0))


async def test_datagrams_of_unix_sockets(loop: Any, tmp_path: Any) -> None:
    with contextlib.ExitStack() as stack:
        far, near = (
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            for _ in range(2)
        )
        far.setblocking(False)
        near.setblocking(False)
        path = str(tmp_path / "far")
        far.bind(path)
        assert await loop.sock_sendto(near, b"anonymous", path) == 9
        assert await loop.sock_recvfrom(far, 99) == (b"anonymous", None)
        near.bind(str(tmp_path / "near"))
        await loop.sock_sendto(near, b"named", path)
        assert await loop.sock_recvfrom(far, 99) == (b"named", near.getsockname())


async def test_sendto_resolves_names_and_waits(loop: Any, peers: Any) -> None:
    near, far = peers
    port = far.getsockname()[1]
    assert await loop.sock_sendto(near, b"x", ("localhost", port)) == 1
    assert await loop.sock_recvfrom(far, 9) == (b"x", near.getsockname())
    with pytest.raises(OSError):
        await loop.sock_sendto(near, bytes(70_000), far.getsockname())
    with pytest.raises((OverflowError, OSError)):
        await loop.sock_sendto(near, b"x", ("127.0.0.1", 70_000))
    with pytest.raises(TypeError):
        await loop.sock_sendto(near, b"x", ("nul\0", 1))


async def test_sendto_waits_for_room(loop: Any, tmp_path: Any) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.setblocking(False)
    right.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            left.send(b"x")
            count += 1
    task = asyncio.create_task(loop.sock_sendall(left, b"last"))
    await turns(3)
    assert not task.done()
    for _ in range(count):
        assert await loop.sock_recv(right, 9) == b"x"
    assert await loop.sock_recv(right, 9) == b"last"
    await task
    left.close()
    right.close()


def test_a_closed_loop_refuses_to_wait(new_loop: Any) -> None:
    other = new_loop()
    other.close()
    left, right = unix_pair()
    coro = other.sock_recv(left, 10)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        coro.send(None)
    right.send(b"x")
    coro = other.sock_recv(left, 10)
    with pytest.raises(StopIteration):
        coro.send(None)
    left.close()
    right.close()


def test_closing_the_loop_drops_the_waits(new_loop: Any) -> None:
    loop = new_loop()
    before = len(open_fds())
    left, right = unix_pair()
    coro = loop.sock_recv(left, 10)
    task = loop.create_task(coro)
    loop.run_until_complete(turns(2))
    loop.call_exception_handler = lambda context: None
    loop.close()
    task._log_destroy_pending = False
    del task, coro
    collect()
    left.close()
    right.close()
    assert len(open_fds()) < before + 2
