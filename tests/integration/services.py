"""Real servers for tests, examples and benchmarks: PostgreSQL, Redis, NATS, MQTT.

    with Redis() as redis:
        print(redis.url)

    with running("postgres", "redis") as servers:
        print(servers["postgres"].url)

Or as a program, which runs a command with POSTGRES_DSN, REDIS_URL, NATS_URL and
MQTT_URL (those that were asked for) in its environment:

    python tests/integration/services.py postgres redis -- COMMAND...

Every server has a temporary folder and loopback ports of its own. It is stopped
and the folder removed at the end of the `with`, and also when this process dies.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

PATIENCE = 60.0
LOOPBACK = "127.0.0.1"


def program(name: str, *folders: str) -> str:
    """The path of a program in PATH or else in the last of the folders."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])
    found = shutil.which(name, path=path)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    return found


def await_that(condition: Callable[[], object], what: str) -> None:
    """Return once the condition holds; raise if it does not in good time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(0.01)


def answer(address: str | tuple[str, int], question: bytes = b"") -> bytes:
    """The beginning of what a server says to the question; b"" if nothing."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    try:
        with socket.socket(family) as sock:
            sock.settimeout(5)
            sock.connect(address)
            sock.sendall(question)
            return sock.recv(1024)
    except OSError:
        return b""


class Port:
    """A free port of the loopback interface, kept from others until closed.

    The socket is bound and never listens: a server that sets SO_REUSEADDR (all of
    them do) can listen on the port, go away and come back, while the kernel does
    not take the port for a connection that leaves from here.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((LOOPBACK, 0))
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


class Watcher:
    """A process that outlives this one by as long as it takes to clean up.

    It is told the server's process id, sees this process end as the end of its
    input, kills the server if one still runs, and removes the folder.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, "--watch", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for the foreground's group
        )

    def tell(self, pid: int) -> None:
        """The server's process id now; 0 where none runs."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % pid)
        self._process.stdin.flush()

    def close(self) -> None:
        """Have the folder removed, and wait for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def watch(folder: str) -> None:
    """The watcher's own program."""
    pid = 0
    for line in sys.stdin:
        pid = int(line)
    if pid:
        with contextlib.suppress(ProcessLookupError):
            end_orphan(pid)
    shutil.rmtree(folder, ignore_errors=True)


def end_orphan(pid: int) -> None:
    """End a process that has lost its parent; ProcessLookupError once it has."""
    os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        os.kill(pid, 0)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)


class Server:
    """One server, running from `with` on until its end; see the subclasses.

    With a certificate (a PEM file that holds the key, the chain and the issuer)
    it offers TLS as well as plain connections.
    """

    name: str
    variable: str
    stop_signal: int = signal.SIGTERM
    ports = 1
    tls_ports = 0  # where TLS does not share the port of plain connections

    def __init__(self, certificate: pathlib.Path | None = None) -> None:
        self.tls = certificate is not None
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None
        self._owner: dict[str, Any] = {}  # for Popen: who runs the programs

    @property
    def url(self) -> str:
        raise NotImplementedError

    def prepare(self) -> None:
        """Write into the folder what the server needs, before its first start."""

    def command(self) -> Sequence[str | pathlib.Path]:
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it serves by now."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"hotloop-{self.name}-"))
        self._watcher = Watcher(self.folder)
        count = self.ports + (self.tls_ports if self.tls else 0)
        self._ports = [Port() for _ in range(count)]
        self.port = self._ports[0].number
        self.tls_port = self._ports[-1].number
        try:
            if self._certificate is not None:
                shutil.copyfile(self._certificate, self.folder / "tls.pem")
                (self.folder / "tls.pem").chmod(0o600)
            self.prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for port in self._ports:
            port.close()
        self._watcher.close()

    @property
    def log(self) -> str:
        """What the server's programs have printed."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, at the same address as before, and wait until it serves."""
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                process_group=0,
                **self._owner,
            )
        self._watcher.tell(self._process.pid)
        await_that(self._serves, f"{self.name} serves; its log:\n{self.log}")

    def _serves(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended; its log:\n{self.log}")
        return self.answers()

    def stop(self) -> None:
        """Have it end in good order; nothing to do where none runs."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Its main process does nothing meanwhile: peers see neither data nor end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            # If an interrupt got here first, the end is left to the watcher.
            if process.returncode is not None:
                self._process = None
                self._watcher.tell(0)


class Postgres(Server):
    """PostgreSQL. Passwords over TCP, trust over the Unix socket in `folder`."""

    name = "postgres"
    variable = "POSTGRES_DSN"
    stop_signal = signal.SIGINT  # "fast": does not wait for the clients to leave
    user = password = "hotloop"
    database = "postgres"

    @property
    def url(self) -> str:
        login = f"{self.user}:{self.password}"
        return f"postgresql://{login}@{LOOPBACK}:{self.port}/{self.database}"

    def kill(self) -> None:
        # "Immediate": as a crash, but without orphans that hold the port.
        self._end(signal.SIGQUIT)

    def prepare(self) -> None:
        self._give_away()
        password = self.folder / "password"
        password.write_text(self.password)
        self._run(
            *(self._program("initdb"), "--pgdata=data", "--no-sync"),
            *(f"--username={self.user}", "--pwfile=password"),
            *("--auth-local=trust", "--auth-host=scram-sha-256"),
            *("--encoding=UTF8", "--no-locale", "--no-instructions"),
        )

    def _give_away(self) -> None:
        """Let another user own the folder where we are root: initdb insists."""
        if os.geteuid() != 0:
            return
        names = [user.pw_name for user in pwd.getpwall()]
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        ids = user.pw_uid, user.pw_gid
        self._owner = {"user": ids[0], "group": ids[1], "extra_groups": []}
        for path in (self.folder, *self.folder.iterdir()):
            os.chown(path, *ids)

    def _program(self, name: str) -> str:
        # Debian keeps them out of PATH, in a folder per version.
        folders = glob.glob("/usr/lib/postgresql/*/bin")
        newest_first = sorted(folders, key=lambda path: (len(path), path), reverse=True)
        return program(name, *newest_first)

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            text=True,
            **self._owner,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}")

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": self.folder,
            "max_connections": 200,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "dynamic_shared_memory_type": "mmap",  # in the folder, not in /dev/shm
        }
        if self.tls:
            tls_file = self.folder / "tls.pem"
            settings |= {"ssl": "on", "ssl_cert_file": tls_file}
            settings |= {"ssl_key_file": tls_file}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [self._program("postgres"), "-D", "data", *options]

    def answers(self) -> bool:
        where = [f"--host={self.folder}", f"--port={self.port}"]
        done = subprocess.run([self._program("pg_isready"), "--quiet", *where])
        return done.returncode == 0


class Redis(Server):
    """Redis, without persistence. Also at the Unix socket `socket_path`."""

    name = "redis"
    variable = "REDIS_URL"
    tls_ports = 1

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def tls_url(self) -> str:
        return f"rediss://{LOOPBACK}:{self.tls_port}/0"

    @property
    def socket_path(self) -> str:
        return str(self.folder / "socket")

    def command(self) -> list[str]:
        options = ["--bind", LOOPBACK, "--port", str(self.port)]
        options += ["--unixsocket", self.socket_path, "--dir", str(self.folder)]
        options += ["--save", "", "--appendonly", "no"]
        if self.tls:
            options += ["--tls-port", str(self.tls_port), "--tls-auth-clients", "no"]
            for kind in ("cert", "key", "ca-cert"):
                options += [f"--tls-{kind}-file", "tls.pem"]
        return [program("redis-server"), *options]

    def answers(self) -> bool:
        address = (LOOPBACK, self.port)
        return answer(address, b"PING\r\n").startswith(b"+PONG")


class Nats(Server):
    """NATS with JetStream; `websocket_url` leads to the same server."""

    name = "nats"
    variable = "NATS_URL"
    ports = 2

    @property
    def url(self) -> str:
        return f"nats://{LOOPBACK}:{self.port}"

    @property
    def websocket_url(self) -> str:
        return f"ws://{LOOPBACK}:{self._ports[1].number}"

    def prepare(self) -> None:
        websocket = f"{LOOPBACK}:{self._ports[1].number}"
        lines = [
            f"host: {LOOPBACK}",
            f"port: {self.port}",
            f"jetstream: {{store_dir: '{self.folder}'}}",
            f"websocket: {{listen: '{websocket}', no_tls: true}}",
            "max_payload: 8MB",
        ]
        if self.tls:
            lines.append("tls: {cert_file: tls.pem, key_file: tls.pem}")
            lines.append("allow_non_tls: true")
        (self.folder / "nats.conf").write_text("\n".join(lines))

    def command(self) -> list[str]:
        # Debian's folder is not in every user's PATH.
        return [program("nats-server", "/usr/sbin"), "--config", "nats.conf"]

    def answers(self) -> bool:
        return answer((LOOPBACK, self.port)).startswith(b"INFO ")


class Mosquitto(Server):
    """Mosquitto, an MQTT broker."""

    name = "mosquitto"
    variable = "MQTT_URL"
    tls_ports = 1

    @property
    def url(self) -> str:
        return f"mqtt://{LOOPBACK}:{self.port}"

    def prepare(self) -> None:
        lines = [f"listener {self.port} {LOOPBACK}", "allow_anonymous true"]
        lines += [f"listener 0 {self.folder}/socket"]
        if self.tls:
            lines.append(f"listener {self.tls_port} {LOOPBACK}")
            lines += ["certfile tls.pem", "keyfile tls.pem"]
        if os.geteuid() == 0:
            lines.append("user root")  # it would give up the folder otherwise
        (self.folder / "mosquitto.conf").write_text("\n".join(lines))

    def command(self) -> list[str]:
        return [program("mosquitto", "/usr/sbin"), "-c", "mosquitto.conf"]

    def answers(self) -> bool:
        connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01?"
        return answer((LOOPBACK, self.port), connect) == b"\x20\x02\x00\x00"


SERVERS = {kind.name: kind for kind in (Postgres, Redis, Nats, Mosquitto)}


@contextlib.contextmanager
def running(
    *names: str, certificate: pathlib.Path | None = None
) -> Iterator[dict[str, Any]]:
    """Servers by their names: postgres, redis, nats, mosquitto."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(SERVERS[name](certificate)) for name in names}


def run(command: Sequence[str], servers: dict[str, Any]) -> int:
    """Run a command that finds the servers in its environment."""
    addresses = {server.variable: server.url for server in servers.values()}
    process = subprocess.Popen(command, env=os.environ | addresses)
    # Ctrl-C reaches the command as well, and it is the command that decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    return 128 - code if code < 0 else code


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--watch"]:
        watch(arguments[1])
        return 0
    if "--" not in arguments:
        print(f"usage: services.py {{{','.join(SERVERS)}}}... -- COMMAND...")
        return 2
    split = arguments.index("--")
    names, command = arguments[:split], arguments[split + 1 :]
    if not command or not set(names) <= set(SERVERS):
        return main([])
    with running(*names) as servers:
        return run(command, servers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
