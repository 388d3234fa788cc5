"""Small programs with one mistake each, and the same without it.

They are run by doctor_driver.py, which gives them seen(kind), to wait until the doctor
has seen something, and quiet(), to wait long enough for it to see what is not there.
The line that is to be found has the mark "# here".
"""

from __future__ import annotations

from typing import NamedTuple


class Pair(NamedTuple):
    kind: str
    wrong: str
    right: str


SERVERS = """
import asyncio, concurrent.futures, contextlib, socket, subprocess, threading, time

async def serve(answer):
    return await asyncio.start_server(answer, "127.0.0.1", 0)

def address(server):
    return server.sockets[0].getsockname()[:2]

async def late(reader, writer):
    await reader.readline()
    await asyncio.sleep(0.3)
    writer.write(b"answer\\n")
    writer.close()

async def silent(reader, writer):
    await reader.read()
    writer.close()
"""

ASKS = """
async def ask(where):
    reader, writer = await asyncio.open_connection(*where)
    try:
        writer.write(b"question\\n")
        return {await_answer}
    finally:
        writer.close()

async def main():
    released = asyncio.Event()
    async def hold(reader, writer):
        await released.wait()
        writer.close()
    async def release():
        {wait}
        released.set()
    async with await serve(hold) as server:
        await asyncio.gather(ask(address(server)), release())
"""

SWALLOWS = """
async def work():
    while True:
        try:
            await asyncio.sleep(60)
        {handler}
        await asyncio.sleep(60)

async def main():
    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    {wait}
    task.cancel()
    await asyncio.wait([task])
"""

TURNS = """
async def ask(where):
    reader, writer = await asyncio.open_connection(*where)
    writer.write(b"question\\n")
    answer = await reader.readline()
    writer.close()
    return answer

async def main():
    servers = [await serve(late) for _ in range(4)]
    {ask}
    for server in servers:
        server.close()
"""

GROWS = """
async def main():
    tasks = set()
    limit = asyncio.Semaphore({limit})
    released = asyncio.Event()

    async def work():
        await released.wait()
        limit.release()

    async def work_soon():
        await asyncio.sleep(0)
        limit.release()

    async def make():
        for _ in range(1000):
            await limit.acquire()
            tasks.add(asyncio.create_task({work}()))  # here
            await asyncio.sleep(0.004)

    maker = asyncio.create_task(make())
    {wait}
    maker.cancel()
    released.set()
    await asyncio.wait([maker, *tasks])
"""

BLOCKS = """
async def main():
    {call}  # here
    await quiet()
"""

COMPUTES = """
def part(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until: sum(range(20000))  # here

async def main():
    {call}
    await quiet()
"""

PAIRS = {
    "sleep": Pair(
        "blocking-call",
        BLOCKS.format(call="time.sleep(0.4)"),
        BLOCKS.format(call="await asyncio.sleep(0.4)"),
    ),
    "process": Pair(
        "blocking-call",
        BLOCKS.format(call="subprocess.run(['sleep', '0.4'])"),
        BLOCKS.format(
            call="await (await asyncio.create_subprocess_exec('sleep', '0.4')).wait()"
        ),
    ),
    "network": Pair(
        "blocking-call",
        """
async def main():
    left, right = socket.socketpair()
    timer = threading.Timer(0.4, left.send, [b"x"])
    timer.start()
    right.recv(1)  # here
    await quiet()
    timer.join()
    left.close()
    right.close()
""",
        """
async def main():
    left, right = socket.socketpair()
    right.setblocking(False)
    timer = threading.Timer(0.4, left.send, [b"x"])
    timer.start()
    await asyncio.get_running_loop().sock_recv(right, 1)
    await quiet()
    timer.join()
    left.close()
    right.close()
""",
    ),
    "file": Pair(
        "blocking-call",
        """
import os
async def main():
    end, other = os.pipe()
    timer = threading.Timer(0.4, os.write, [other, b"x"])
    timer.start()
    os.read(end, 1)  # here
    await quiet()
    timer.join()
    os.close(end)
    os.close(other)
""",
        """
import os
async def main():
    end, other = os.pipe()
    timer = threading.Timer(0.4, os.write, [other, b"x"])
    timer.start()
    await asyncio.to_thread(os.read, end, 1)
    await quiet()
    timer.join()
    os.close(end)
    os.close(other)
""",
    ),
    "computing": Pair(
        "blocking-call",
        COMPUTES.format(call="part(0.6)"),
        COMPUTES.format(
            call="[(part(0.005), await asyncio.sleep(0)) for _ in '1' * 60]"
        ),
    ),
    "callback": Pair(
        "blocking-call",
        """
def called(done):
    time.sleep(0.4)  # here
    done.set()

async def main():
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(called, done)
    await done.wait()
    await quiet()
""",
        """
async def main():
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(0.4, done.set)
    await done.wait()
    await quiet()
""",
    ),
    "not awaited": Pair(
        "never-awaited",
        "async def work(): pass\nasync def main():\n    work()  # here\n",
        "async def work(): pass\nasync def main():\n    await work()\n",
    ),
    "lost": Pair(
        "task-lost",
        """
import gc
async def work():
    await asyncio.get_running_loop().create_future()

async def main():
    asyncio.create_task(work())  # here
    await asyncio.sleep(0.01)
    gc.collect()
""",
        """
import gc
async def work():
    await asyncio.get_running_loop().create_future()

async def main():
    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    gc.collect()
    task.cancel()
    await asyncio.wait([task])
""",
    ),
    "unread": Pair(
        "exception-unread",
        """
async def work():
    raise ValueError("nobody cares")

async def main():
    asyncio.create_task(work())  # here
    await asyncio.sleep(0.01)
""",
        """
async def work():
    raise ValueError("nobody cares")

async def main():
    task = asyncio.create_task(work())
    await asyncio.wait([task])
    assert task.exception()
""",
    ),
    "read": Pair(
        "await-without-timeout",
        ASKS.format(
            await_answer="await reader.readline()  # here",
            wait="await seen('await-without-timeout')",
        ).replace("}  # here", "  # here"),
        ASKS.format(
            await_answer="await asyncio.wait_for(reader.readline(), 60)",
            wait="await quiet()",
        ),
    ),
    "read within a timeout further out": Pair(
        "await-without-timeout",
        ASKS.format(
            await_answer="await reader.readline()  # here",
            wait="await seen('await-without-timeout')",
        ),
        ASKS.format(await_answer="await reader.readline()", wait="await quiet()")
        .replace("await asyncio.gather(", "await asyncio.wait_for(asyncio.gather(")
        .replace("release())", "release()), 60)"),
    ),
    "connect": Pair(
        "await-without-timeout",
        """
async def main():
    async def connect():
        with contextlib.suppress(OSError):
            await asyncio.open_connection(*where)  # here
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        where = listener.getsockname()
        others = [socket.socket() for _ in range(4)]
        for each in others:
            each.setblocking(False)
            each.connect_ex(where)  # the queue is full then
        connecting = asyncio.create_task(connect())
        await asyncio.gather(seen("await-without-timeout"))
        connecting.cancel()
        await asyncio.wait([connecting])
        for each in others:
            each.close()
""",
        """
async def main():
    async def connect():
        with contextlib.suppress(OSError):
            async with asyncio.timeout(60):
                await asyncio.open_connection(*where)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        where = listener.getsockname()
        others = [socket.socket() for _ in range(4)]
        for each in others:
            each.setblocking(False)
            each.connect_ex(where)
        connecting = asyncio.create_task(connect())
        await asyncio.gather(quiet())
        connecting.cancel()
        await asyncio.wait([connecting])
        for each in others:
            each.close()
""",
    ),
    "goes on": Pair(
        "cancellation-swallowed",
        SWALLOWS.format(
            handler="except asyncio.CancelledError: pass  # here",
            wait="await seen('cancellation-swallowed')",
        ),
        SWALLOWS.format(
            handler="except asyncio.CancelledError: asyncio.current_task().uncancel()",
            wait="await quiet()",
        ),
    ),
    "suppressed": Pair(
        "cancellation-swallowed",
        """
async def work():
    while True:
        with contextlib.suppress(asyncio.CancelledError):  # here
            await asyncio.sleep(60)
        await asyncio.sleep(60)

async def main():
    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    await seen("cancellation-swallowed")
    task.cancel()
    await asyncio.wait([task])
""",
        """
async def work():
    try:
        await asyncio.sleep(60)
    finally:
        await quiet()  # cleans up, and is cancelled afterwards

async def main():
    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
""",
    ),
    "not closed": Pair(
        "never-closed",
        """
async def connect(where):
    reader, writer = await asyncio.open_connection(*where)  # here

async def main():
    async with await serve(silent) as server:
        await connect(address(server))
""",
        """
async def connect(where):
    reader, writer = await asyncio.open_connection(*where)
    writer.close()
    await writer.wait_closed()

async def main():
    async with await serve(silent) as server:
        await connect(address(server))
""",
    ),
    "executor": Pair(
        "never-closed",
        """
async def main():
    pool = concurrent.futures.ThreadPoolExecutor(1)  # here
    await asyncio.get_running_loop().run_in_executor(pool, int)
""",
        """
async def main():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        await asyncio.get_running_loop().run_in_executor(pool, int)
""",
    ),
    "growth": Pair(
        "task-growth",
        GROWS.format(limit=10**6, work="work", wait="await seen('task-growth')"),
        GROWS.format(limit=20, work="work_soon", wait="await asyncio.sleep(1.6)"),
    ),
    "in turn": Pair(
        "sequential-awaits",
        TURNS.format(
            ask="for server in servers:\n        await ask(address(server))  # here"
        ),
        TURNS.format(
            ask="await asyncio.gather(*(ask(address(server)) for server in servers))"
        ),
    ),
    "left": Pair(
        "left-behind",
        """
async def work():
    await asyncio.sleep(60)

async def main():
    task = asyncio.create_task(work())  # here
    await asyncio.sleep(0.01)
""",
        """
async def work():
    await asyncio.sleep(60)

async def main():
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        await asyncio.sleep(0.01)
        task.cancel()
""",
    ),
}

# Correct programs that might be taken for wrong.
CORRECT = {
    "a server that waits": """
async def main():
    async def talk():
        reader, writer = await asyncio.open_connection(*address(server))
        await quiet()
        writer.close()
        await writer.wait_closed()
    async with await serve(silent) as server:
        await talk()
""",
    "a listener": """
async def main():
    async def late(reader, writer):
        await quiet()
        writer.write(b"news")
        writer.close()
    async with await serve(late) as server:
        reader, writer = await asyncio.open_connection(*address(server))
        await reader.read()
        writer.close()
""",
    "consumers": """
async def main():
    queue = asyncio.Queue()
    async def consume():
        while True:
            await queue.get()
            queue.task_done()
    async with asyncio.TaskGroup() as group:
        consumers = [group.create_task(consume()) for _ in range(5)]
        await quiet()
        for number in range(100):
            queue.put_nowait(number)
        await queue.join()
        for task in consumers:
            task.cancel()
""",
    "many tasks at once": """
async def main():
    released = asyncio.Event()
    tasks = [asyncio.create_task(released.wait()) for _ in range(500)]
    await asyncio.sleep(1.6)
    released.set()
    await asyncio.gather(*tasks)
""",
    "a timeout that ends in time": """
async def main():
    for _ in range(3):
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            await asyncio.sleep(0.15)
""",
    "a handler that raises": """
async def work():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await quiet()
        raise

async def main():
    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
""",
    "a handler that cleans up": """
async def work():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await quiet()
            return

async def main():
    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
""",
    "a conversation": """
async def main():
    async def answer(reader, writer):
        while await reader.readline():
            await asyncio.sleep(0.06)
            writer.write(b"yes\\n")
        writer.close()
    async with await serve(answer) as one, await serve(answer) as two:
        pairs = [await asyncio.open_connection(*address(s)) for s in (one, two)]
        for _ in range(4):
            for reader, writer in pairs:
                writer.write(b"well?\\n")
                async with asyncio.timeout(60):
                    await reader.readline()
        for reader, writer in pairs:
            writer.close()
            await writer.wait_closed()
""",
}
