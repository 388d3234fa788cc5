"""What a trace says about values: equal for equal things on any loop."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import Any

ADDRESS = re.compile(r"0x[0-9a-f]+|\.\.\.[^\s>]*(?=>)")  # some cut short
DEFAULT_NAME = re.compile(r"\bTask-(\d+)")
CREATED = re.compile(r" created at [^>]*")  # asyncio's create_future() is in it
OURS = re.compile(r"\b(hotloop\.|hotloop\._core\.|_asyncio\.)(?=[A-Z])")
# Which of the two a step was queued as is not told apart in a report.
STEP = re.compile(
    r"<TaskStepMethWrapper object at 0x>\(\)"
    r"|<TaskWakeupMethWrapper object at 0x>\(.*?\)(?=>|$)"
    r"|Task\.task_wakeup\(.*?\)(?=>|$)"
)
# A handle's argument, a future, may have the same in it.
WAKEUP = re.compile(
    r"^(<Handle |Exception in callback )"
    r"(?:<TaskWakeupMethWrapper object at 0x>|Task\.task_wakeup)\(.*\)(?=>?$)",
    re.DOTALL,
)
WHEN = re.compile(r"\bwhen=(\d+\.\d+)")
PLACE = re.compile(r"(/[^\s:>]*/)([^/\s:>]+\.py)")
# With a task factory these name every task "None" that was given no name.
NAMES_NONE = (3, 13, 0) <= sys.version_info[:3] < (3, 13, 3)
LOOPS = {
    "base_events",
    "events",
    "selector_events",
    "unix_events",
    "_loop",
    "testing",
}

Described = Any


def clean(text: str) -> str:
    """Without addresses, folders, the module's name, and what debug mode adds."""
    text = ADDRESS.sub("0x", text)
    text = CREATED.sub("", text)
    text = WHEN.sub(lambda found: f"when={float(found.group(1)):.2f}", text)
    text = PLACE.sub(lambda found: found.group(2), text)
    text = WAKEUP.sub(r"\1<step>", OURS.sub("", text))
    return STEP.sub("<step>", text)


def nameless(text: str) -> str:
    """Without the numbers in default names either."""
    return DEFAULT_NAME.sub("Task", clean(text))


def shown(value: Any) -> str:
    """Its repr, if it has one."""
    try:
        return repr(value)
    except Exception as error:
        return f"<no repr: {type(error).__name__}>"


class Describer:
    """Gives names to objects, in the order in which they are first seen.

    It keeps what it named, so that no address is used twice.
    """

    def __init__(self, first_task: int) -> None:
        self.first_task = first_task
        self.names: dict[int, str] = {}
        self.kept: list[Any] = []
        self.counts: dict[str, int] = {}

    def name(self, thing: Any, prefix: str) -> str:
        found = self.names.get(id(thing))
        if found is None:
            self.counts[prefix] = number = self.counts.get(prefix, 0) + 1
            found = self.names[id(thing)] = f"{prefix}{number}"
            self.kept.append(thing)
        return found

    def text(self, text: str) -> str:
        """A repr without addresses, folders, and where names began to count."""
        text = clean(text)
        if NAMES_NONE:
            return DEFAULT_NAME.sub("Task", text).replace("None", "Task")
        return DEFAULT_NAME.sub(
            lambda m: f"Task+{int(m.group(1)) - self.first_task}", text
        )

    def value(self, value: Any) -> Described:
        if value is None or isinstance(value, (bool, int)):
            return value
        if isinstance(value, float):
            return round(value, 2)
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, BaseException):
            return self.error(value)
        if isinstance(value, asyncio.Task):
            return self.name(value, "task")
        if asyncio.isfuture(value):
            return self.name(value, "future")
        if isinstance(value, (set, frozenset)):
            # Names are given in an order that does not depend on addresses.
            return [self.value(item) for item in sorted(value, key=self.order)]
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {str(key): self.value(item) for key, item in value.items()}
        return self.text(shown(value))

    def order(self, item: Any) -> tuple[str, str]:
        return self.names.get(id(item), "~"), self.text(shown(item))

    def error(self, error: BaseException | None, depth: int = 6) -> Described:
        """Type, arguments, traceback, what caused it and what it came in."""
        if error is None:
            return None
        known = id(error) in self.names
        said: list[Any] = [self.name(error, "error"), type(error).__name__]
        said.append([self.text(shown(arg)) for arg in error.args])
        said.append(functions(error))
        if known and depth < 6:
            return said
        if depth > 0:
            if error.__cause__ is not None:
                said.append(("cause", self.error(error.__cause__, depth - 1)))
            if error.__context__ is not None:
                said.append(("context", self.error(error.__context__, depth - 1)))
            if isinstance(error, BaseExceptionGroup):
                parts = [self.error(part, depth - 1) for part in error.exceptions]
                said.append(("parts", parts))
        if error.__suppress_context__:
            said.append("suppressed")
        if hasattr(error, "__notes__"):
            said.append(("notes", list(error.__notes__)))
        return said


def functions(error: BaseException) -> str:
    """The functions of the traceback, outermost first, without the loop's."""
    names = []
    entry = error.__traceback__
    while entry is not None:
        code = entry.tb_frame.f_code
        module = os.path.basename(code.co_filename).removesuffix(".py")
        name = f"{module}.{code.co_name}"
        if module not in LOOPS and name != "tasks.factory":
            names.append(name)
        entry = entry.tb_next
    return " ".join(names[-12:])
