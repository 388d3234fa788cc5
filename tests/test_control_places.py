"""Where control sockets are, who may use them, forks, and programs left unchanged."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import errno
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from support import run_script, wanted_kinds
from watching import environment, folder, program, sockets

if "hotloop" not in wanted_kinds():
    pytest.skip("hotloop is not wanted", allow_module_level=True)

import hotloop
from hotloop import control
from hotloop.control import Client, _places

pytestmark = pytest.mark.slow

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root is several users")
NOBODY = 65534

__all__ = ["folder"]  # the fixture


@pytest.fixture
def loop() -> Iterator[Any]:
    made = hotloop.new_event_loop()
    yield made
    made.close()


def abandoned(path: str) -> None:
    """Leave a socket at a path that nobody listens at."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()


def a_dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


# ---- folders ----


def test_folders_that_are_not_private(folder: str, loop: Any, tmp_path: Any) -> None:
    ours = pathlib.Path(folder, "hotloop")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    ours.symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="not a folder of this user alone"):
        control.serve(loop)
    ours.unlink()
    ours.mkdir()
    ours.chmod(0o750)
    with pytest.raises(PermissionError):
        control.serve(loop)
    ours.chmod(0o700)
    assert control.serve(loop).path.startswith(str(ours))
    assert list(elsewhere.iterdir()) == []


@ROOT_ONLY
def test_a_folder_of_somebody_else(folder: str, loop: Any) -> None:
    ours = pathlib.Path(folder, "hotloop")
    ours.mkdir(mode=0o700)
    os.chown(ours, NOBODY, NOBODY)
    with pytest.raises(PermissionError):
        control.serve(loop)
    assert list(ours.iterdir()) == []


def test_without_a_runtime_folder(monkeypatch: Any, folder: str, loop: Any) -> None:
    os.chmod(folder, 0o755)  # not fit to be one
    monkeypatch.setattr(_places.tempfile, "tempdir", folder)
    path = control.serve(loop).path
    wanted = os.path.join(folder, f"hotloop-{os.geteuid()}", f"{os.getpid()}-1.sock")
    assert path == wanted
    assert [place.path for place in control.find(os.getpid())] == [wanted]


# ---- sockets ----


def test_stale_sockets_are_removed(folder: str, loop: Any) -> None:
    ours = pathlib.Path(folder, "hotloop")
    ours.mkdir(mode=0o700)
    dead, alive = a_dead_pid(), os.getppid()
    abandoned(f"{ours}/{dead}-1.sock")
    abandoned(f"{ours}/{alive}-1.sock")  # of a process that has not begun to listen
    abandoned(f"{ours}/{os.getpid()}-1.sock")  # of one that had our number
    (ours / "notes-1.sock").write_text("not ours")
    (ours / f"{dead}-2.sock").write_text("no socket")
    path = control.serve(loop).path
    assert os.path.basename(path) == f"{os.getpid()}-1.sock"
    names = {f"{dead}-2.sock", f"{alive}-1.sock", "notes-1.sock"}
    assert set(sockets(folder)) == {os.path.basename(path), *names}
    assert control.find(alive) == []
    with Client(path) as client:
        assert client.ask("about")


def test_several_loops_have_a_name_each(folder: str, loop: Any) -> None:
    second = hotloop.new_event_loop()
    paths = [control.serve(each).path for each in (loop, second)]
    names = [f"{os.getpid()}-{number}.sock" for number in (1, 2)]
    assert [os.path.basename(path) for path in paths] == names
    assert [place.path for place in control.find(os.getpid())] == paths
    assert [place.number for place in control.find()] == [1, 2]
    loop.close()
    assert [place.path for place in control.find()] == paths[1:]
    second.close()


def test_paths_that_are_taken(folder: str, loop: Any) -> None:
    path = os.path.join(folder, "mine.sock")
    pathlib.Path(path).write_text("precious")
    with pytest.raises(OSError, match="Address already in use") as caught:
        control.serve(loop, path=path)
    assert caught.value.filename == path
    assert pathlib.Path(path).read_text() == "precious"
    os.unlink(path)
    os.symlink(os.path.join(folder, "target.sock"), path)
    with pytest.raises(OSError, match="Address already in use"):
        control.serve(loop, path=path)
    assert os.listdir(folder) == ["mine.sock"]
    os.unlink(path)
    abandoned(path)
    assert control.serve(loop, path=path).path == path
    other = hotloop.new_event_loop()
    with pytest.raises(OSError, match="Address already in use"):
        control.serve(other, path=path)
    other.close()
    with Client(path) as client:
        assert client.ask("about")


def test_paths_that_cannot_be(folder: str, loop: Any) -> None:
    with pytest.raises(OSError, match="too long") as caught:
        control.serve(loop, path=os.path.join(folder, "x" * 200))
    assert caught.value.errno == errno.ENAMETOOLONG
    with pytest.raises(FileNotFoundError):
        control.serve(loop, path=os.path.join(folder, "no", "folder"))
    assert loop._control is None


@ROOT_ONLY
def test_other_users_are_not_answered(folder: str, loop: Any) -> None:
    os.chmod(folder, 0o755)
    path = control.serve(loop, path=os.path.join(folder, "open.sock")).path
    os.chmod(path, 0o666)
    source = f"""
import os, socket
os.setgid({NOBODY}); os.setuid({NOBODY})
sock = socket.socket(socket.AF_UNIX)
sock.connect({path!r})
try:
    sock.send(b'{{"request": "about"}}\\n')
    print(sock.recv(100))
except (BrokenPipeError, ConnectionResetError):
    print(b"")
"""
    # What root runs may look: what is not root here is another user.
    script = [sys.executable, "-c", source]
    out = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert out == "b''\n"
    with Client(path) as client:
        assert client.ask("about")


@ROOT_ONLY
def test_a_program_of_somebody_else_is_not_believed(folder: str) -> None:
    os.chmod(folder, 0o777)
    path = os.path.join(folder, "trap.sock")
    source = f"""
import os, socket, sys
from hotloop.control import Client
here, there = socket.socketpair()
pid = os.fork()
if pid == 0:
    os.setuid({NOBODY})
    listener = socket.socket(socket.AF_UNIX)
    listener.bind({path!r})
    listener.listen()
    os.chmod({path!r}, 0o666)
    there.send(b"x")
    there.recv(1)
    os._exit(0)
here.recv(1)
os.setuid(1)
try:
    Client({path!r})
except PermissionError as error:
    print(error.strerror)
here.send(b"x")
os.waitpid(pid, 0)
"""
    script = [sys.executable, "-c", source]
    out = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert out == "the program behind it is another user's\n"


# ---- forks ----


def test_a_child_does_not_answer(folder: str) -> None:
    out, _ = run_script(
        "hotloop",
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from hotloop import control
        from hotloop.control import Client

        def child(loop, asking, go):
            mine = loop._control
            assert mine.closed
            loop.close()  # the file is the parent's
            assert os.path.exists(mine.path)
            fresh = new_loop()
            path = control.serve(fresh).path
            assert path != mine.path
            with Client(path) as client:
                assert client.ask("about")["pid"] == os.getpid()
            fresh.close()
            go.send(b"x")
            go.recv(1)  # until the parent is done

        loop = new_loop()
        path = control.serve(loop).path
        client = Client(path)
        assert client.ask("about")["pid"] == os.getpid()
        here, there = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                here.close()
                child(loop, client, there)
                status = 0
            finally:
                os._exit(status)
        there.close()
        here.recv(1)
        assert client.ask("about")["pid"] == os.getpid()
        with Client(path) as another:
            assert another.ask("about")["pid"] == os.getpid()
        loop.close()
        # The child, which lives, holds no end of it.
        try:
            client.ask("about")
        except ConnectionResetError:
            print("ended")
        here.send(b"x")
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """,
    )
    assert out.split() == ["ended", "0"]


def test_forks_under_questions(folder: str) -> None:
    out, _ = run_script(
        "hotloop",
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from hotloop import control
        from hotloop.control import Client
        loop = new_loop()
        path = control.serve(loop).path
        stop = threading.Event()

        def ask():
            with Client(path) as client:
                while not stop.is_set():
                    client.ask("tasks")
                    client.ask("stacks")

        async def inside():
            with Client(control.serve().path) as client:
                client.ask("tasks")
                return client.ask("about")["pid"]

        asking = threading.Thread(target=ask)
        asking.start()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    status = run(inside()) != os.getpid()
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        asking.join()
        loop.close()
        print(os.listdir(os.path.dirname(path)))
        """,
    )
    assert out == "[]\n"


# ---- programs left unchanged ----


def test_the_environment_asks_for_it(folder: str) -> None:
    with program(folder) as process:
        places = control.find(process.pid)
        assert [place.number for place in places] == [1]
        with Client(places[0].path) as client:
            about = client.ask("about")
            assert about["pid"] == process.pid and about["running"]
            assert about["command"][1:3] == ["-m", "hotloop"]
            assert client.ask("metrics")["enabled"] is True
            process.communicate("", timeout=30)
            with pytest.raises(ConnectionResetError):
                client.ask("about")
        assert process.returncode == 0
        assert sockets(folder) == []


@pytest.mark.parametrize("setting", ["", "0", "no", "OFF"])
def test_the_environment_does_not_ask(folder: str, setting: str) -> None:
    with program(folder, control=setting) as process:
        assert control.find(process.pid) == []
        process.communicate("", timeout=30)
    assert os.listdir(folder) == []


def test_a_folder_in_the_environment(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = os.path.join(folder, "mine")
    monkeypatch.setenv("HOTLOOP_CONTROL", mine)
    with program(folder, control=mine) as process:
        assert os.listdir(mine) == [f"{process.pid}-1.sock"]
        assert [place.path for place in control.find(process.pid)] == [
            os.path.join(mine, f"{process.pid}-1.sock")
        ]
        process.communicate("", timeout=30)


def test_a_program_does_not_fail_for_it(folder: str) -> None:
    os.mkdir(os.path.join(folder, "hotloop"), 0o755)
    os.chmod(os.path.join(folder, "hotloop"), 0o755)
    source = "import asyncio; asyncio.run(asyncio.sleep(0, print('ran')))"
    done = subprocess.run(
        [sys.executable, "-m", "hotloop", "-c", source],
        capture_output=True,
        text=True,
        env=environment(folder, HOTLOOP_CONTROL="1"),
        check=True,
    )
    assert done.stdout == "ran\n"
    assert "HOTLOOP_CONTROL" in done.stderr and "0700" in done.stderr


def test_it_does_not_keep_the_program(folder: str) -> None:
    # Neither a loop that is never closed, nor freed, nor a client that stays.
    source = """
import ctypes, sys, hotloop
from hotloop import control
loop = hotloop.new_event_loop()
ctypes.pythonapi.Py_IncRef(ctypes.py_object(loop))
print(control.serve(loop).path, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(folder),
    ) as process:
        assert process.stdout is not None
        path = process.stdout.readline().strip()
        with Client(path) as client:
            assert client.ask("about")["pid"] == process.pid
            process.communicate("", timeout=30)
    assert process.returncode == 0 and not os.path.exists(path)
