"""Upload and download of files as streams, checked by digest; sendfile for download.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/file_transfer.py                           asyncio's loop
    python examples/run_with.py hotloop examples/file_transfer.py
    python examples/file_transfer.py --serve 127.0.0.1:8012 --folder FOLDER

"put NAME SIZE" and the data, answered by the SHA-256; "get NAME", answered by the
size and the data. No file is ever in memory as a whole. An upload goes to a temporary
file, which gets its name when it is complete: one that breaks off leaves nothing. The
kernel sends downloads from the file to the socket.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import re
import tempfile
import time
from pathlib import Path
from typing import IO, Any

CHUNK = 256 * 1024
Address = tuple[str, int]
NAME = re.compile(r"\w[\w.-]*", re.ASCII)  # no way out of the folder
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


class Files:
    """The server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def serve(self, reader: Reader, writer: Writer) -> None:
        try:
            async for line in reader:
                command, name, *size = line.decode().split()
                if not NAME.fullmatch(name):
                    raise ValueError(f"bad name {name!r}")
                if command == "put":
                    await self.put(reader, writer, name, int(size[0]))
                else:
                    await self.get(writer, name)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            writer.close()

    async def put(self, reader: Reader, writer: Writer, name: str, size: int) -> None:
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            part = Path(file.name)
            try:
                digest = await receive(reader, size, file)
                part.rename(self.folder / name)
            except BaseException:
                part.unlink()
                raise
        writer.write(digest.encode() + b"\n")
        await writer.drain()

    async def get(self, writer: Writer, name: str) -> None:
        with open(self.folder / name, "rb") as file:
            writer.write(b"%d\n" % os.fstat(file.fileno()).st_size)
            await send(writer, file)


async def receive(reader: Reader, size: int, file: IO[bytes]) -> str:
    """Write so many bytes to the file; returns their digest."""
    digest = hashlib.sha256()
    while size:
        data = await reader.read(min(CHUNK, size))
        if not data:
            raise asyncio.IncompleteReadError(data, size)
        digest.update(data)
        # To the page cache it is quick. For a slow disk: asyncio.to_thread().
        file.write(data)
        size -= len(data)
    file.flush()
    return digest.hexdigest()


async def send(writer: Writer, file: Any) -> None:
    loop = asyncio.get_running_loop()
    try:
        await loop.sendfile(writer.transport, file)
    except NotImplementedError:  # uvloop has none
        while data := file.read(CHUNK):
            writer.write(data)
            await writer.drain()


async def upload(address: Address, path: Path) -> str:
    """Returns the digest that the server computed."""
    reader, writer = await asyncio.open_connection(*address)
    with contextlib.closing(writer), path.open("rb") as file:
        writer.write(f"put {path.name} {path.stat().st_size}\n".encode())
        await send(writer, file)
        return (await reader.readuntil()).decode().strip()


async def download(address: Address, path: Path) -> str:
    """Returns the digest of what came."""
    reader, writer = await asyncio.open_connection(*address)
    with contextlib.closing(writer), path.open("wb") as file:
        writer.write(f"get {path.name}\n".encode())
        return await receive(reader, int(await reader.readuntil()), file)


async def break_off(address: Address) -> None:
    """Promise a file, send half of it, and wait until the server has noticed."""
    reader, writer = await asyncio.open_connection(*address)
    with contextlib.closing(writer), contextlib.suppress(ConnectionError):
        writer.write(b"put half 1000000\n" + bytes(500_000))
        writer.write_eof()
        await reader.read()


async def try_out(address: Address, top: Path, count: int, size: int) -> None:
    paths = [top / "client" / f"file{number}" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(f"{number:09}\n".encode() * (size // 10))
    started = time.perf_counter()
    sent = await asyncio.gather(*(upload(address, path) for path in paths))
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    received = await asyncio.gather(*(download(address, path) for path in paths))
    elapsed = time.perf_counter() - started
    print(f"{count} files of {size} bytes up: {sent == expected}", end=", ")
    print(f"down: {received == expected}")
    await break_off(address)
    print("files on the server:", len(list((top / "server").iterdir())))
    print(f"{2 * count * size / 1e6 / elapsed:,.0f} MB/s")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", metavar="HOST:PORT")
    parser.add_argument("--folder", type=Path, default=".")
    parser.add_argument("--count", type=int, default=10, help="files")
    parser.add_argument("--size", type=int, default=20_000_000, help="of each")
    options = parser.parse_args()
    host, _, port = (options.serve or "127.0.0.1:0").rpartition(":")
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for part in ("client", "server"):
            (top / part).mkdir()
        files = Files(options.folder if options.serve else top / "server")
        async with await asyncio.start_server(files.serve, host, int(port)) as server:
            address = server.sockets[0].getsockname()[:2]
            if options.serve:
                print("serving on", *address, flush=True)
                await server.serve_forever()
            await try_out(address, top, options.count, options.size)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
