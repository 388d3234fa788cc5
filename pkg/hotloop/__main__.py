"""``python -m hotloop``: run an unchanged program, or a prompt, on hotloop."""

from __future__ import annotations

import sys

from ._program import main

if __name__ == "__main__":
    main(sys.argv[1:])
