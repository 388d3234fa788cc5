"""The part of Loop that tells what the loop does: metrics, profile, watchdog."""

from __future__ import annotations

import os
from typing import NamedTuple

from . import _watchdog
from ._connect import ConnectingLoop
from ._metrics import Metrics, ProfileEntry, sorted_profile
from ._watchdog import Report

METRICS = "HOTLOOP_METRICS"
WATCHDOG = "HOTLOOP_WATCHDOG"
_LEVELS = {"": None, "0": None, "1": False, "profile": True}


def _metrics_level(value: str) -> bool | None:
    """What HOTLOOP_METRICS asks for: None for nothing, else whether to profile."""
    if value not in _LEVELS:
        raise ValueError(f"{METRICS} is to be 0, 1 or profile, not {value!r}")
    return _LEVELS[value]


def _watchdog_limit(value: str) -> float | None:
    """What HOTLOOP_WATCHDOG asks for, in seconds; None for nothing."""
    try:
        return _watchdog.check_limit(float(value)) if value not in ("", "0") else None
    except ValueError:
        message = f"{WATCHDOG} is to be a number of seconds, not {value!r}"
        raise ValueError(message) from None


class Wishes(NamedTuple):
    """What the environment asks for."""

    profile: bool | None
    limit: float | None


def wishes() -> Wishes:
    """Read the environment; raise ValueError for what it cannot mean."""
    return Wishes(
        _metrics_level(os.environ.get(METRICS, "")),
        _watchdog_limit(os.environ.get(WATCHDOG, "")),
    )


class InsightLoop(ConnectingLoop):
    """The part of Loop that tells what the loop does."""

    __slots__ = ()

    def _grant(self, wishes: Wishes) -> None:
        if wishes.profile is not None:
            self.enable_metrics(profile=wishes.profile)
        if wishes.limit is not None:
            self.enable_watchdog(wishes.limit)

    def metrics(self) -> Metrics:
        """Return the loop's counts and times at this moment.

        From any thread; also while the loop does not run, and when it is closed.
        """
        return Metrics.from_core(self._metrics())

    def enable_metrics(self, enabled: bool = True, *, profile: bool = False) -> None:
        """Take times from now on, or stop taking them.

        With profile, also the time of each callback and of each step of a task, for
        profile(). What was counted so far is kept. From any thread.
        """
        self._enable_metrics(enabled, profile)

    def profile(self, *, clear: bool = False) -> list[ProfileEntry]:
        """Return what the callbacks and tasks cost, those with most time first.

        It has at most 1024 entries; what comes later counts for one named "(other)".
        With clear the next one begins with nothing. From any thread.
        """
        return sorted_profile(self._profile(clear))

    def enable_watchdog(
        self, limit: float | None, report: Report | None = None
    ) -> None:
        """Have callbacks reported that block the loop for longer than limit seconds.

        A thread calls report(BlockedCallback) while the callback is still at it, once
        for each; without report it goes to the asyncio logger as a warning. None as the
        limit ends that, as close() does. From any thread. Raise ValueError for a limit
        that is not above zero, and RuntimeError when the loop is closed.
        """
        _watchdog.enable(self, limit, report)
