"""The limit on open descriptors."""

from __future__ import annotations

import contextlib
import resource

WANTED = 65536


def raise_descriptor_limit() -> int:
    """Raise the limit as far as allowed; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    for hard_wanted in (max(hard, WANTED), hard):
        soft = WANTED if unlimited else hard_wanted
        limits = (soft, hard if unlimited else hard_wanted)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
