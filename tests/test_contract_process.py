"""asyncio's contract, row by row: pipes and processes. See contract.toml."""

# mypy: disable-error-code="misc"

from __future__ import annotations

import asyncio
import collections
import io
import os
import subprocess
import sys
from typing import Any

import pytest

from support import Recorder, turns

PIPE = asyncio.subprocess.PIPE


async def output(code: str, *args: str, **kwargs: Any) -> str:
    """What a Python program prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *args, stdout=PIPE, **kwargs
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode().strip()


@pytest.mark.parametrize("ending", ["write_eof", "close", "abort"])
async def test_d25_ends_of_a_write_pipe(loop: Any, ending: str) -> None:
    """D25: connection_lost() gets None, whichever way the writer ended."""
    reading, writing = os.pipe()
    protocol = Recorder(loop)
    transport, _ = await loop.connect_write_pipe(
        lambda: protocol, io.FileIO(writing, "w")
    )
    transport.write(b"x")
    getattr(transport, ending)()
    assert await protocol.closed is None
    assert os.read(reading, 10) == b"x"
    os.close(reading)


async def test_extra_info_of_pipes(loop: Any) -> None:
    """2.2: a pipe has "pipe" and nothing that looks like a socket."""
    reading, writing = os.pipe()
    file = io.FileIO(reading, "r")
    transport, protocol = await loop.connect_read_pipe(lambda: Recorder(loop), file)
    assert transport.get_extra_info("pipe") is file
    assert transport.get_extra_info("socket") is None
    assert isinstance(transport, asyncio.ReadTransport)
    os.close(writing)
    assert await protocol.closed is None


async def test_parameters_of_connect_pipe(loop: Any) -> None:
    """connect_read_pipe, connect_write_pipe: they take protocol_factory."""
    reading, writing = os.pipe()
    writer, _ = await loop.connect_write_pipe(
        protocol_factory=asyncio.BaseProtocol, pipe=io.FileIO(writing, "w")
    )
    reader, protocol = await loop.connect_read_pipe(
        protocol_factory=lambda: Recorder(loop), pipe=io.FileIO(reading, "r")
    )
    writer.close()
    assert await protocol.closed is None
    assert reader.is_closing()


async def test_extra_info_of_a_process(loop: Any) -> None:
    """2.2: "subprocess" is the Popen object."""
    transport, _ = await loop.subprocess_exec(
        asyncio.SubprocessProtocol, "true", stdin=None, stdout=None, stderr=None
    )
    process = transport.get_extra_info("subprocess")
    assert isinstance(process, subprocess.Popen)
    assert process.pid == transport.get_pid()
    await transport._wait()
    transport.close()
    await turns(3)


async def test_d28_standard_streams_are_pipes(loop: Any) -> None:
    """D28: the child may open its streams again by name."""
    code = """if True:
    import os, stat, sys
    kinds = [stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in range(3)]
    with open("/dev/stdin") as file:
        text = file.read()
    out = "/proc/self/fd/1"
    with open(out if os.path.exists(out) else "/dev/stdout", "w") as file:
        file.write(f"{kinds} {text}")
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate(b"through a pipe")
    assert (out, err) == (b"[True, True, True] through a pipe", b"")


async def test_d28_descriptors_are_not_leaked(loop: Any) -> None:
    """D28: an inheritable descriptor stays here, unless close_fds is false."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    code = "import os, sys; print(os.path.exists(f'/dev/fd/{sys.argv[1]}'))"
    assert await output(code, str(writing)) == "False"
    assert await output(code, str(writing), pass_fds=[writing]) == "True"
    assert await output(code, str(writing), close_fds=False) == "True"
    os.close(reading)
    os.close(writing)


KEYWORDS: dict[str, Any] = {
    "bufsize": 0,
    "encoding": None,
    "errors": None,
    "extra_groups": None,
    "group": None,
    "pipesize": 65536,
    "process_group": 0,
    "shell": False,
    "start_new_session": True,
    "text": False,
    "umask": 0o077,
    "universal_newlines": False,
    "user": None,
}


@pytest.mark.parametrize("name", sorted(KEYWORDS))
async def test_keyword_of_popen(loop: Any, name: str) -> None:
    """subprocess_exec: every keyword of Popen, as far as it makes no text."""
    assert await output("print('ran')", **{name: KEYWORDS[name]}) == "ran"


async def test_umask_and_process_group(loop: Any) -> None:
    """subprocess_exec: umask and process_group count."""
    code = "import os; print(os.umask(0), os.getpgid(0) == os.getpid())"
    assert await output(code, umask=0o027, process_group=0) == f"{0o027} True"


@pytest.mark.parametrize("name", ["text", "universal_newlines"])
async def test_text_is_refused(loop: Any, name: str) -> None:
    """subprocess_exec: streams are of bytes."""
    with pytest.raises(ValueError, match=f"{name} must be False"):
        await output("", **{name: True})


async def test_environment_of_any_mapping(loop: Any) -> None:
    """subprocess_exec: env may be any mapping, os.environ itself too."""
    code = "import os; print(os.environ.get('CONTRACT'))"
    env = collections.UserDict(os.environ, CONTRACT="kept")
    assert await output(code, env=env) == "kept"
    assert await output(code, env=os.environ) == "None"


async def test_executable_leaves_the_name(loop: Any) -> None:
    """subprocess_exec: executable= does not replace the first argument."""
    code = "tr '\\0' ' ' < /proc/self/cmdline; echo; echo $0"
    process = await asyncio.create_subprocess_exec(
        "a-name", "-c", code, executable="/bin/sh", stdout=PIPE
    )
    out, _ = await process.communicate()
    assert out.split()[-1] == b"a-name"
