"""asyncssh: server and client on one loop; shells, files, forwarded ports."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import asyncssh
import pytest

from clientpeers import MIB, block, checksum_of, standstill
from servers import Echo, serve, stop
from support import settle, until

HOST_KEY = asyncssh.generate_private_key("ssh-ed25519")
USER_KEY = asyncssh.generate_private_key("ssh-ed25519")


class Server(asyncssh.SSHServer):
    """Lets in who has the key or the password; forwards all ports."""

    ended: list[Any]

    def connection_lost(self, exc: Any) -> None:
        self.ended.append(exc)

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        await asyncio.sleep(0)
        return password == "word"

    def connection_requested(self, *args: Any) -> bool:
        return True

    def server_requested(self, host: str, port: int) -> bool:
        return True

    def unix_connection_requested(self, path: str) -> bool:
        return True


class Shell:
    """What runs in a session: a few commands, or lines turned around."""

    def __init__(self) -> None:
        self.waiting = self.ended = self.sent = 0

    async def __call__(self, process: Any) -> None:
        try:
            command, *words = (process.command or "shell").split()
            await getattr(self, command)(process, *words)
        except (asyncssh.BreakReceived, asyncssh.SignalReceived) as error:
            process.stderr.write(f"{type(error).__name__}\n")
            process.exit(3)
        finally:
            self.ended += 1

    async def say(self, process: Any, text: str, code: str = "0") -> None:
        process.stdout.write(text)
        process.stderr.write(text.upper())
        process.exit(int(code))

    async def wait(self, process: Any) -> None:
        self.waiting += 1
        await process.stdin.read()

    async def drop(self, process: Any) -> None:
        await until(lambda: self.waiting == 2)
        process.get_extra_info("connection").abort()

    async def pour(self, process: Any, blocks: str) -> None:
        for number in range(int(blocks)):
            process.stdout.write(block(number, 1 << 16).hex())
            await process.stdout.drain()
            self.sent += 1
        process.exit(0)

    async def shell(self, process: Any) -> None:
        async for line in process.stdin:
            process.stdout.write(line.rstrip("\n")[::-1] + "\n")
        process.exit(7)


@contextlib.asynccontextmanager
async def serving(folder: pathlib.Path | None = None) -> AsyncIterator[Any]:
    """A server on a free port, its shell and the ends of its connections."""
    shell = Shell()
    ended: list[Any] = []

    def make() -> Server:
        server = Server()
        server.ended = ended
        return server

    def files(channel: Any) -> Any:
        assert folder is not None
        return asyncssh.SFTPServer(channel, chroot=str(folder))

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=make,
        server_host_keys=[HOST_KEY],
        authorized_client_keys=asyncssh.import_authorized_keys(
            USER_KEY.export_public_key().decode()
        ),
        process_factory=shell,
        sftp_factory=files if folder else None,
    )
    try:
        yield server.get_port(), shell, ended
    finally:
        server.close()
        await server.wait_closed()


def connect(port: int, **options: Any) -> Any:
    known = asyncssh.import_known_hosts(
        f"[127.0.0.1]:{port} {HOST_KEY.export_public_key().decode()}"
    )
    given: dict[str, Any] = {"client_keys": [USER_KEY], "known_hosts": known}
    given |= {"username": "user", "config": None, "agent_path": None}
    return asyncssh.connect("127.0.0.1", port, **(given | options))


async def link_to(port: int) -> asyncssh.SSHClientConnection:
    link: asyncssh.SSHClientConnection = await connect(port)
    return link


async def test_commands(loop: Any) -> None:
    """Many at once on a few connections."""
    async with serving() as (port, shell, ended):

        async def user(number: int) -> None:
            async with connect(port) as link:
                results = await asyncio.gather(
                    *(link.run(f"say {number}-{n}x {n}") for n in range(20))
                )
                for n, result in enumerate(results):
                    assert result.exit_status == n
                    assert result.stdout == f"{number}-{n}x"
                    assert result.stderr == f"{number}-{n}X"

        await asyncio.gather(*map(user, range(8)))
        await until(lambda: len(ended) == 8)
        assert ended == [None] * 8 and shell.ended == 160


async def test_a_shell(loop: Any) -> None:
    async with serving() as (port, _, _), connect(port) as link:
        process = await link.create_process(term_type="ansi")
        for number in range(50):
            process.stdin.write(f"line {number}\n")
        process.stdin.write_eof()
        text = await process.stdout.read()
        assert f"{49} enil" not in text and "94 enil" in text
        result = await process.wait()
        assert result.exit_status == 7


async def test_who_may_come_in(loop: Any) -> None:
    async with serving() as (port, _, _):
        async with connect(port, client_keys=None, password="word") as link:
            assert (await link.run("say yes")).stdout == "yes"
        with pytest.raises(asyncssh.PermissionDenied):
            await connect(port, client_keys=None, password="wrong")
        with pytest.raises(asyncssh.HostKeyNotVerifiable):
            await connect(port, known_hosts=asyncssh.import_known_hosts(""))
    with pytest.raises(ConnectionRefusedError):
        await connect(port)


async def test_output_waits_for_the_reader(loop: Any) -> None:
    async with serving() as (port, shell, _), connect(port) as link:
        process = await link.create_process("pour 400")
        await standstill(lambda: shell.sent)
        assert shell.sent < 300
        text = await process.stdout.read()
        assert shell.sent == 400
        digest = hashlib.sha256(bytes.fromhex(text)).hexdigest()
        assert digest == checksum_of(400, 1 << 16)


async def test_files(loop: Any, tmp_path: pathlib.Path) -> None:
    """A big file up and down, a crowd of small ones, and what is not there."""
    served = tmp_path / "served"
    served.mkdir()
    source = tmp_path / "big"
    with source.open("wb") as file:
        for number in range(24):
            file.write(block(number, MIB))
    async with (
        serving(served) as (port, _, _),
        connect(port) as link,
        link.start_sftp_client() as sftp,
    ):
        await sftp.put(str(source), "/big")
        assert (await sftp.stat("/big")).size == 24 * MIB
        await sftp.get("/big", str(tmp_path / "back"))
        back = hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest()
        assert back == checksum_of(24, MIB)

        async def small(number: int) -> bytes:
            async with sftp.open(f"/small{number}", "wb") as file:
                await file.write(block(number, 5000))
            async with sftp.open(f"/small{number}", "rb") as file:
                return bytes(await file.read())

        got = await asyncio.gather(*map(small, range(40)))
        assert got == [block(number, 5000) for number in range(40)]
        assert len(await sftp.glob("/small*")) == 40
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await sftp.get("/nothing", str(tmp_path / "nothing"))


async def test_cancelled_in_a_transfer(loop: Any, tmp_path: pathlib.Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "big").write_bytes(bytes(32 * MIB))
    async with (
        serving(served) as (port, _, _),
        connect(port) as link,
        link.start_sftp_client() as sftp,
    ):
        begun = asyncio.Event()

        def progress(source: bytes, target: bytes, done: int, size: int) -> None:
            if 0 < done < size:
                begun.set()

        target = str(tmp_path / "back")
        task = asyncio.create_task(sftp.get("/big", target, progress_handler=progress))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await sftp.stat("/big")).size == 32 * MIB


async def test_forwarded_ports(loop: Any, tmp_path: pathlib.Path) -> None:
    """From here to there, from there to here, over SOCKS, by a Unix socket."""
    target, (_, goal) = await serve(Echo)
    async with serving() as (port, _, _), connect(port) as link:
        local = await link.forward_local_port("127.0.0.1", 0, "127.0.0.1", goal)
        remote = await link.forward_remote_port("127.0.0.1", 0, "127.0.0.1", goal)
        path = str(tmp_path / "socket")
        unix = await link.forward_local_path_to_port(path, "127.0.0.1", goal)

        async def user(number: int) -> None:
            if number % 3 == 2:
                reader, writer = await asyncio.open_unix_connection(path)
            else:
                chosen = (local, remote)[number % 3]
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", chosen.get_port()
                )
            data = block(number, 100_000)
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            writer.close()
            await writer.wait_closed()

        await asyncio.gather(*map(user, range(45)))
        reader, writer = await link.open_connection("127.0.0.1", goal, encoding=None)
        writer.write(b"direct")
        assert await reader.readexactly(6) == b"direct"
        writer.close()
        for listener in (local, remote, unix):
            listener.close()
            await listener.wait_closed()
    await stop(target)
    await settle()


async def test_cancelled_while_waiting(loop: Any) -> None:
    """A command is left, a timeout ends one; the connection goes on."""
    async with serving() as (port, shell, _), connect(port) as link:
        entered = 0

        async def run() -> None:
            nonlocal entered
            async with link.create_process("wait") as process:
                entered += 1
                await process.wait()

        tasks = [asyncio.create_task(run()) for _ in range(10)]
        await until(lambda: shell.waiting == entered == 10)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {asyncio.CancelledError}
        await until(lambda: shell.ended == 10)
        with pytest.raises(asyncssh.TimeoutError):
            await link.run("wait", timeout=0.05)
        process = await link.create_process("wait")
        process.send_signal("INT")
        result = await process.wait()
        assert (result.exit_status, result.stderr) == (3, "SignalReceived\n")
        assert (await link.run("say alive")).stdout == "alive"


async def test_the_connection_breaks(loop: Any) -> None:
    async with serving() as (port, shell, ended):
        link = await connect(port)
        task = asyncio.create_task(link.run("wait", check=True))
        await until(lambda: shell.waiting == 1)
        link.abort()
        assert (await task).exit_status is None
        await link.wait_closed()
        await until(lambda: shell.ended == 1 and len(ended) == 1)
        async with connect(port) as link:
            results = await asyncio.gather(
                link.run("wait"), link.run("drop"), return_exceptions=True
            )
            assert not any(getattr(result, "exit_status", None) for result in results)
            await link.wait_closed()
            assert link.is_closed()


async def test_cancelled_while_connecting(loop: Any) -> None:
    """At any moment of the handshake; nothing is left behind."""
    finished = turn = 0
    async with serving() as (port, _, _):
        while finished < 2:
            task = asyncio.create_task(link_to(port))
            for _ in range(turn):
                await asyncio.sleep(0)
            task.cancel()
            turn += 2
            try:
                link = await task
            except asyncio.CancelledError:
                continue
            finished += 1
            link.close()
            await link.wait_closed()
        async with connect(port) as link:
            assert (await link.run("say alive")).stdout == "alive"
    await settle()
