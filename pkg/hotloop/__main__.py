"""``python -m hotloop``: run an unchanged program, or a prompt, on hotloop."""

from __future__ import annotations

import sys

from ._program import main

if __name__ == "__main__":
    if sys.argv[1:2] == ["doctor"]:
        from .doctor._command import main as doctor

        doctor(sys.argv[2:])
    else:
        main(sys.argv[1:])
