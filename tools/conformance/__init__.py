"""CPython's own tests of asyncio, run against hotloop.

    python -m tools.conformance [SUITE...]

See docs/conformance.md.
"""
