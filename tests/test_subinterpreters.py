"""Subinterpreters that share the main GIL; test_isolated.py has the others."""

from __future__ import annotations

import pytest

from support import PY, run_script

pytestmark = pytest.mark.skipif(PY < (3, 13), reason="asyncio crashes there in 3.12")

# Runs in each of them: a server, a client, tasks, a thread, names, a child process.
CODE = """
import asyncio, sys
async def main():
    async def serve(reader, writer):
        writer.write(await reader.readexactly(1000))
        writer.close()
    server = await asyncio.start_server(serve, "localhost", 0, family=2)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"x" * 1000)
    assert len(await reader.read()) == 1000
    writer.close()
    server.close()
    await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(10)))
    assert await asyncio.to_thread(int, "7") == 7
for _ in range(3):
    loop = factory()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
import os
os.write(1, b"works\\n")  # in one piece, as others write, too
"""

PREPARE = """
import _interpreters as sub
MODULES = {
    "asyncio": "import asyncio; factory = asyncio.SelectorEventLoop",
    "hotloop": "import hotloop; factory = hotloop.new_event_loop",
}
def play(interpreter):
    failed = sub.run_string(interpreter, MODULES[KIND] + CODE)
    if failed is not None:
        print("failed", failed.formatted, flush=True)
"""


def script(body: str) -> str:
    return f"CODE = {CODE!r}\n{PREPARE}\n{body}"


def test_one_after_the_other(loop_kind: str) -> None:
    out, _ = run_script(
        loop_kind,
        script(
            "for _ in range(4):\n"
            "    interpreter = sub.create('legacy')\n"
            "    play(interpreter)\n"
            "    sub.destroy(interpreter)\n"
            "run(asyncio.sleep(0.001))\n"
            "print('and the main one')\n"
        ),
        timeout=60,
    )
    assert out.splitlines() == ["works"] * 4 + ["and the main one"]


def test_several_at_once_and_the_main_one(loop_kind: str) -> None:
    """Each in a thread of its own, while a loop of the main interpreter runs."""
    out, _ = run_script(
        loop_kind,
        script(
            "interpreters = [sub.create('legacy') for _ in range(3)]\n"
            "async def main():\n"
            "    await asyncio.gather(\n"
            "        *(asyncio.to_thread(play, each) for each in interpreters)\n"
            "    )\n"
            "run(main())\n"
            "for interpreter in interpreters:\n"
            "    sub.destroy(interpreter)\n"
            "print('and the main one')\n"
        ),
        timeout=60,
    )
    assert out.splitlines() == ["works"] * 3 + ["and the main one"]
