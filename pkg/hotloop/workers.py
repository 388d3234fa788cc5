"""Workers of gunicorn on hotloop.

``gunicorn -k hotloop.workers.UvicornWorker app:app`` serves an ASGI application with
uvicorn, ``-k hotloop.workers.AiohttpWorker`` one of aiohttp. They are made when they
are asked for, so that each needs no more than its own packages.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from ._default import set_default
from ._run import new_event_loop

UvicornWorker: Any
UvicornH11Worker: Any
AiohttpWorker: Any

__all__ = ["AiohttpWorker", "UvicornH11Worker", "UvicornWorker"]


def _first(*modules: str) -> Any:
    """The first of these modules that is installed."""
    for name in modules:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # it is there and lacks something
    return None


class _OnHotloop:
    """What makes a worker of gunicorn use our loops, whatever the application says."""

    def init_process(self) -> None:
        """Begin the worker process: gunicorn calls this after the fork."""
        set_default(new_event_loop, keep=False)
        super().init_process()  # type: ignore[misc]


def _uvicorn_worker(http: str | None = None) -> tuple[type, dict[str, Any]]:
    module = _first("uvicorn_worker", "uvicorn.workers")
    if module is None:
        raise ImportError(
            "hotloop's workers for uvicorn need the package uvicorn-worker "
            "(and gunicorn and uvicorn)"
        )
    base: Any = module.UvicornWorker
    settings = {**base.CONFIG_KWARGS, **({} if http is None else {"http": http})}
    # Before it took factories uvicorn knew no other loops: "none" is asyncio's default.
    factories = hasattr(importlib.import_module("uvicorn").Config, "get_loop_factory")
    settings["loop"] = "hotloop:new_event_loop" if factories else "none"
    return base, {"CONFIG_KWARGS": settings}


def _aiohttp_worker() -> tuple[type, dict[str, Any]]:
    module = _first("aiohttp.worker")
    if module is None:
        raise ImportError("hotloop's worker for aiohttp needs the package aiohttp")
    return module.GunicornWebWorker, {}


_MAKERS: dict[str, Callable[[], tuple[type, dict[str, Any]]]] = {
    "AiohttpWorker": _aiohttp_worker,
    "UvicornH11Worker": functools.partial(_uvicorn_worker, "h11"),
    "UvicornWorker": _uvicorn_worker,
}


def __getattr__(name: str) -> Any:
    if name not in _MAKERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    base, names = _MAKERS[name]()
    names |= {"__doc__": f"{base.__module__}.{base.__name__} on hotloop."}
    names |= {"__module__": __name__}
    made = globals()[name] = type(name, (_OnHotloop, base), names)
    return made


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
