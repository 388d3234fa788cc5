"""Every call of hotloop that may run out of memory does, one after the other.

csrc/base/faults.h makes the calls of a debug build ask whether they shall fail;
faults.c answers. `python -m nomemory` plays each scenario again and again, each
time in a process of its own, with another call failing, until it passes
untouched. See `verdict()` in play.py for what is expected of each.
"""
