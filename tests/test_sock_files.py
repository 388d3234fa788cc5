"""What sock_*() calls leave armed in the poller, and files of the same number."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from support import Recorder, finish, tcp_pair, turns, unix_pair, until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="nothing is left armed elsewhere"
)

SECONDS = 0.6
LIMIT = 0.02  # CPU seconds of a loop that has nothing to do for as long


async def used(loop: Any, left: socket.socket, right: socket.socket) -> None:
    """Have left read once after a wait."""
    task = asyncio.create_task(loop.sock_recv(left, 100))
    await turns(2)
    right.send(b"first")
    assert await task == b"first"


async def idle() -> float:
    """CPU seconds that the loop takes to do nothing."""
    start = time.process_time()
    await asyncio.sleep(SECONDS)
    return time.process_time() - start


async def test_data_that_nobody_reads_is_quiet(loop: Any) -> None:
    left, right = unix_pair()
    await used(loop, left, right)
    right.send(b"later")
    assert await idle() < LIMIT
    assert await loop.sock_recv(left, 100) == b"later"
    await used(loop, left, right)
    right.close()
    assert await idle() < LIMIT
    left.close()


async def test_a_file_closed_here_and_open_elsewhere(loop: Any) -> None:
    """The kernel goes on to report it, and cannot be told to stop."""
    left, right = unix_pair()
    await used(loop, left, right)
    elsewhere = os.dup(left.fileno())
    left.close()
    right.send(b"for the other")
    assert await idle() < LIMIT
    assert os.read(elsewhere, 100) == b"for the other"
    os.close(elsewhere)
    right.close()


async def test_a_child_process_has_the_file(loop: Any) -> None:
    left, right = unix_pair()
    await used(loop, left, right)
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, pass_fds=[left.fileno()]
    ) as child:
        left.close()
        right.send(b"for the child")
        spent = await idle()
        child.communicate()
    assert spent < LIMIT
    right.close()


async def test_the_number_goes_to_another_socket(loop: Any) -> None:
    left, right = unix_pair()
    await used(loop, left, right)
    number = left.fileno()
    left.close()
    near, far = unix_pair()
    spare = near if near.fileno() == number else far
    other = far if spare is near else near
    assert spare.fileno() == number
    await used(loop, spare, other)
    for sock in (near, far, right):
        sock.close()


async def test_the_number_goes_to_another_socket_while_a_copy_lives(
    loop: Any,
) -> None:
    left, right = unix_pair()
    await used(loop, left, right)
    number = left.fileno()
    elsewhere = os.dup(number)
    left.close()
    near, far = unix_pair()
    if near.fileno() != number:
        near, far = far, near
    assert near.fileno() == number
    task = asyncio.create_task(loop.sock_recv(near, 100))
    await turns(2)
    right.send(b"for the copy")  # seems to be news of near
    assert await idle() < LIMIT
    assert not task.done()
    far.send(b"for near")
    assert await task == b"for near"
    assert os.read(elsewhere, 100) == b"for the copy"
    os.close(elsewhere)
    for sock in (near, far, right):
        sock.close()


async def test_a_copy_of_what_a_transport_had_the_number_of(loop: Any) -> None:
    left, right = tcp_pair()
    await used(loop, left, right)
    number = left.fileno()
    elsewhere = os.dup(number)
    left.close()
    first, far = tcp_pair()
    taken = first.detach()
    near = socket.socket(fileno=os.dup2(taken, number))
    os.close(taken)
    near.setblocking(False)
    protocol = Recorder(loop)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, near)
    for turn in range(20):  # so many that nobody has doubts any more
        far.send(b"x")
        await until(lambda count=turn + 1: len(protocol.data) == count)
    right.send(b"for the copy")
    assert await idle() < LIMIT
    assert protocol.data == b"x" * 20
    far.send(b"y")
    await until(lambda: protocol.data.endswith(b"y"))
    await finish(transport, far)
    os.close(elsewhere)
    right.close()


async def test_a_reset_copy(loop: Any) -> None:
    left, right = tcp_pair()
    await used(loop, left, right)
    elsewhere = os.dup(left.fileno())
    left.close()
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    right.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    right.close()
    assert await idle() < LIMIT
    os.close(elsewhere)


async def test_many_sockets_survive_a_new_poller(loop: Any) -> None:
    pairs = [unix_pair() for _ in range(50)]
    tasks = [asyncio.create_task(loop.sock_recv(left, 9)) for left, _ in pairs]
    seen: list[bytes] = []
    reading, writing = os.pipe()
    loop.add_reader(reading, lambda: seen.append(os.read(reading, 9)))
    gone, right = unix_pair()
    await used(loop, gone, right)
    elsewhere = os.dup(gone.fileno())
    gone.close()
    right.send(b"x")
    assert await idle() < LIMIT
    for _, far in pairs:
        far.send(b"here")
    assert await asyncio.gather(*tasks) == [b"here"] * 50
    os.write(writing, b"pipe")
    await until(lambda: seen)
    loop.remove_reader(reading)
    for near, far in pairs:
        near.close()
        far.close()
    for fd in (reading, writing, elsewhere):
        os.close(fd)
    right.close()


# Threads of libraries that earlier tests used do not matter to this child.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_that_goes_on_with_the_loop(new_loop: Any, loop_kind: str) -> None:
    """After fork() a descriptor that is closed by now does no harm."""
    if loop_kind == "asyncio":
        pytest.skip("its child shares the parent's poller")
    loop = new_loop()
    left, right = unix_pair()
    closed, other = unix_pair()
    loop.run_until_complete(used(loop, left, right))
    loop.run_until_complete(used(loop, closed, other))
    closed.close()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            loop.run_until_complete(turns(3))
            near, far = unix_pair()
            loop.run_until_complete(used(loop, near, far))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0) == (pid, 0)
    loop.run_until_complete(used(loop, left, right))
    for sock in (left, right, other):
        sock.close()
    loop.close()
