"""How a loop learns that its child processes have ended."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio import unix_events
from asyncio.log import logger
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._loop import Loop

_unix: Any = unix_events  # stubs know little of it, and that by version
_Callback = Callable[..., object]


# From 3.14 on the loop has a watcher of asyncio's, and ours passes for one.
_Base: Any = _unix._PidfdChildWatcher if sys.version_info >= (3, 14) else object


class ChildWatcher(_Base):  # type: ignore[misc]
    """asyncio's child watcher for one loop: descriptors, or else threads.

    A pidfd is a descriptor that becomes readable when its process ends. Where the
    kernel gives none (too old, forbidden, out of descriptors) one thread waits for
    one child, in asyncio's own way.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._pidfds: set[int] = set()
        self._threads: Any = None

    def add_child_handler(self, pid: int, callback: _Callback, *args: Any) -> None:
        """Have ``callback(pid, returncode, *args)`` called when the child ends."""
        try:
            pidfd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            self._thread_watcher().add_child_handler(pid, callback, *args)
            return
        self._pidfds.add(pidfd)
        self._loop._add_reader(pidfd, self._ended, pid, pidfd, callback, args)

    def close(self) -> None:
        """Wait for no one any longer."""
        for pidfd in self._pidfds:
            self._loop._remove_reader(pidfd)
            os.close(pidfd)
        self._pidfds.clear()

    def _thread_watcher(self) -> Any:
        if self._threads is None:
            if sys.version_info >= (3, 14):
                self._threads = _unix._ThreadedChildWatcher()
            else:
                self._threads = _unix.ThreadedChildWatcher()
        return self._threads

    def _ended(
        self, pid: int, pidfd: int, callback: _Callback, args: tuple[Any, ...]
    ) -> None:
        self._loop._remove_reader(pidfd)
        self._pidfds.discard(pidfd)
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:
            # Somebody else asked for the status first.
            returncode = 255
            logger.warning(
                "child process pid %d exit status already read: "
                " will report returncode 255",
                pid,
            )
        else:
            returncode = _unix.waitstatus_to_exitcode(status)
        finally:
            os.close(pidfd)
        callback(pid, returncode, *args)


def may_replace(watcher: Any) -> bool:
    """Whether the inherited loop's watcher waits by pidfd, or there is none."""
    return _Base is object or type(watcher) is _Base


def program_has_its_own() -> bool:
    """Whether a child watcher was set that the loop must use instead of its own.

    There are none from 3.14 on. Before, ThreadedChildWatcher (and PidfdChildWatcher
    from 3.12 on) is what asyncio sets by itself.
    """
    policy = asyncio.get_event_loop_policy()
    default = _unix._UnixDefaultEventLoopPolicy
    if (
        not isinstance(policy, default)
        or type(policy).get_child_watcher is not default.get_child_watcher
    ):
        return True
    watcher = policy._watcher
    usual = [type(None), _unix.ThreadedChildWatcher]
    if sys.version_info >= (3, 12):
        usual.append(_unix.PidfdChildWatcher)
    return type(watcher) not in usual


async def make_transport(
    loop: Loop, watcher: ChildWatcher, *args: Any, **kwargs: Any
) -> asyncio.SubprocessTransport:
    """Start a process, as the loop's ``_make_subprocess_transport()`` before 3.14."""
    waiter = loop.create_future()
    transport: Any = _unix._UnixSubprocessTransport(
        loop, *args, waiter=waiter, **kwargs
    )
    watcher.add_child_handler(
        transport.get_pid(), loop._child_watcher_callback, transport
    )
    try:
        await waiter
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:
        transport.close()
        await transport._wait()
        raise
    return transport  # type: ignore[no-any-return]
