"""The part of Loop that tells what the loop does: metrics, profile, watchdog."""

from __future__ import annotations

from ._connect import ConnectingLoop
from ._metrics import Metrics, ProfileEntry
from ._watchdog import Report


class InsightLoop(ConnectingLoop):
    """The part of Loop that tells what the loop does."""

    __slots__ = ()

    def metrics(self) -> Metrics:
        """Return the loop's counts and times at this moment.

        From any thread; also while the loop does not run, and when it is closed.
        """
        raise NotImplementedError

    def enable_metrics(self, enabled: bool = True, *, profile: bool = False) -> None:
        """Take times from now on, or stop taking them.

        With profile, also the time of each callback and of each step of a task, for
        profile(). What was counted so far is kept. From any thread.
        """
        raise NotImplementedError

    def profile(self, *, clear: bool = False) -> list[ProfileEntry]:
        """Return what the callbacks and tasks cost, those with most time first.

        It has at most 1024 entries; what comes later counts for one named "(other)".
        With clear the next one begins with nothing. From any thread.
        """
        raise NotImplementedError

    def enable_watchdog(
        self, limit: float | None, report: Report | None = None
    ) -> None:
        """Have callbacks reported that block the loop for longer than limit seconds.

        A thread calls report(BlockedCallback) while the callback is still at it, once
        for each; without report it goes to the asyncio logger as a warning. None as the
        limit ends that. close() ends it, too.
        """
        raise NotImplementedError
