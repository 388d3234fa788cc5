"""How a thread pool of the standard library gets work without a Future of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, thread
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core import WorkItem

_thread: Any = thread
_PARTS = (
    "_adjust_thread_count",
    "_broken",
    "_shutdown",
    "_shutdown_lock",
    "_work_queue",
)


def _own_submit() -> Any:
    """Return submit() if it is the one this module knows, else None."""
    submit = ThreadPoolExecutor.submit
    if type(submit) is not FunctionType or submit.__globals__ is not vars(thread):
        return None  # replaced by a tool that wants to see each call
    pool = ThreadPoolExecutor(1, "hotloop")  # a name: it takes no number
    parts = all(hasattr(pool, name) for name in _PARTS)
    shared = hasattr(thread, "_shutdown") and hasattr(thread, "_global_shutdown_lock")
    return submit if parts and shared else None


_submit = _own_submit()


def hand_over(executor: Any, work: WorkItem) -> bool:
    """Queue work in a ThreadPoolExecutor as its submit() does.

    Return False, with nothing done, if submit() itself must be asked: it was
    replaced, or the pool takes no work and it knows the reason.
    """
    # On the class and the object itself: a wrapper may pass as what it wraps.
    if ThreadPoolExecutor.submit is not _submit or "submit" in vars(executor):
        return False
    with executor._shutdown_lock, _thread._global_shutdown_lock:
        if executor._broken or executor._shutdown or _thread._shutdown:
            return False
        executor._work_queue.put(work)
        executor._adjust_thread_count()
    return True
