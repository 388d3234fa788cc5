"""System calls that fail, stop short or are interrupted."""

from __future__ import annotations

import asyncio.base_events
import inspect
import pathlib

import pytest

import faults

SCARCE = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")


@pytest.mark.parametrize("how", ["interrupted", "short", "not-ready", "all"])
def test_storm(loop_kind: str, certificate: pathlib.Path, how: str) -> None:
    """No byte is lost when calls fail as the kernel may have them fail."""
    out = faults.run_program(loop_kind, "storm", certificate, how, 7)
    lines = out.splitlines()
    assert lines.pop() == "hit"
    assert len(lines) >= 9
    assert all(line.endswith(" whole") for line in lines), out


def test_accepting(loop_kind: str) -> None:
    """Want of anything makes a pause; who was in the queue is served after it."""
    out = faults.run_program(loop_kind, "accepting")
    reports = [f"socket.accept() out of system resource {name}" for name in SCARCE]
    served = ["served hello"] * 5
    assert out.splitlines() == [*reports, *served, "hits 7 reports 0"]


def test_making(loop_kind: str) -> None:
    """No descriptor, no memory: the error is raised, and nothing is left open."""
    out = faults.run_program(loop_kind, "making")
    expected = []
    # Others make a server that listens at no address.
    says = "could not bind on any" in inspect.getsource(asyncio.base_events)
    server = "could not bind" if says else "made"
    for name in ("connection", "server", "endpoint", "unix", "child"):
        for error in SCARCE:
            text = server if name == "server" else error
            expected.append(f"{name} {text}")
    assert out.splitlines() == [*expected, "left 0"]


def test_sending_and_receiving(loop_kind: str) -> None:
    """A real error ends the connection, which is told of it."""
    out = faults.run_program(loop_kind, "sending-and-receiving")
    assert out.splitlines() == [
        f"{call} {error} lost {error}"
        for call in ("send", "receive")
        for error in (
            *("ENOBUFS", "ENOMEM", "ECONNRESET", "EPIPE", "ETIMEDOUT"),
            "EHOSTUNREACH",
        )
    ]


def test_datagram_errors(loop_kind: str) -> None:
    """An error of a datagram is told to the protocol; the endpoint goes on."""
    out = faults.run_program(loop_kind, "datagram-errors")
    expected = []
    for call, data in (("send", b"second"), ("receive", b"first")):
        for error in ("ENOBUFS", "ENOMEM", "ECONNREFUSED", "EHOSTUNREACH", "EPERM"):
            name = f"{call} {error}"
            expected += [f"{name} error {error}", f"{name} got {data!r} None"]
            expected.append(f"{name} lost None")
    assert out.splitlines() == expected


def test_watching(loop_kind: str) -> None:
    """The kernel watches no more: it is reported, and hotloop tries again."""
    expected = []
    for error in ("ENOSPC", "ENOMEM"):
        expected += ["connection got b'hello' None", "connection lost None"]
        expected.append(f"reported {error}")
        if loop_kind == "hotloop":  # asyncio's connection stays deaf
            expected.append("connection got b'hello' None")
        expected.append("connection lost None")
    expected += ["reader ENOSPC", "reports 0"]
    assert faults.run_program(loop_kind, "watching").splitlines() == expected


def test_wall_clock(loop_kind: str) -> None:
    """Timers do not hear of a wall clock that is set forth or back."""
    out = faults.run_program(loop_kind, "wall-clock")
    assert out.splitlines() == ["on time"] * 4
