"""An event bus: parts of a program that know each other by events only.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/event_bus.py                               asyncio's loop
    python examples/run_with.py hotloop examples/event_bus.py

Events are dataclasses, handlers are registered by their class (a handler of a base
class gets all derived events). publish() returns when all handlers are done, so the
publisher feels the load; a handler that fails is reported and hinders no other.
stream() gives events to an `async for`, with a bound on how many may wait.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar


@dataclass(frozen=True)
class Event:
    """What every event is."""

    number: int


class Ordered(Event):
    pass


class Paid(Event):
    pass


E = TypeVar("E", bound=Event)
Handler = Callable[[Any], Awaitable[None]]


class Bus:
    """Handlers by class of event."""

    def __init__(self) -> None:
        self.handlers: dict[type[Event], list[Handler]] = {}
        self.errors: list[Exception] = []

    def subscribe(
        self, kind: type[E], handler: Callable[[E], Awaitable[None]]
    ) -> Callable[[], None]:
        """Call the handler with each event of the kind; returns what undoes it."""
        handlers = self.handlers.setdefault(kind, [])
        handlers.append(handler)
        return lambda: handlers.remove(handler)

    async def publish(self, event: Event) -> None:
        async with asyncio.TaskGroup() as group:
            for kind in type(event).__mro__[:-1]:
                for handler in tuple(self.handlers.get(kind, ())):
                    group.create_task(self._call(handler, event))

    async def _call(self, handler: Handler, event: Event) -> None:
        try:
            await handler(event)
        except Exception as exc:
            self.errors.append(exc)

    @contextlib.asynccontextmanager
    async def stream(
        self, kind: type[E], limit: int = 100
    ) -> AsyncIterator[AsyncIterator[E]]:
        """The events published within the block, for an `async for`."""
        queue: asyncio.Queue[E] = asyncio.Queue(limit)

        async def events() -> AsyncGenerator[E, None]:
            while True:
                yield await queue.get()

        unsubscribe = self.subscribe(kind, queue.put)
        try:
            async with contextlib.aclosing(events()) as iterator:
                yield iterator
        finally:
            unsubscribe()
            while not queue.empty():  # publishers may be waiting for room
                queue.get_nowait()
                await asyncio.sleep(0)


async def total_of_paid(bus: Bus, ready: asyncio.Event, count: int) -> int:
    """A subscriber that reads events in its own time."""
    total = 0
    async with bus.stream(Paid, limit=10) as events:
        ready.set()
        async for event in events:
            total += event.number
            count -= 1
            if not count:
                break
    return total


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=5000, help="orders")
    options = parser.parse_args()
    bus = Bus()
    seen: list[Event] = []

    async def pay(order: Ordered) -> None:
        await bus.publish(Paid(order.number))  # handlers may publish in turn

    async def audit(event: Event) -> None:
        seen.append(event)

    async def complain(event: Paid) -> None:
        if event.number % 1000 == 0:
            raise ValueError(f"payment {event.number}")

    bus.subscribe(Ordered, pay)
    bus.subscribe(Event, audit)
    stop_complaining = bus.subscribe(Paid, complain)
    ready = asyncio.Event()
    totals = asyncio.create_task(total_of_paid(bus, ready, options.count))
    await ready.wait()
    started = time.perf_counter()
    for number in range(options.count):
        await bus.publish(Ordered(number))
    total = await totals
    elapsed = time.perf_counter() - started
    print(f"{len(seen)} events audited, {total=}, as expected:", end=" ")
    print(total == sum(range(options.count)))
    print(f"{len(bus.errors)} failures, the first: {bus.errors[0]}")
    stop_complaining()
    await bus.publish(Paid(0))
    print(f"{len(bus.errors)} failures when it has unsubscribed")
    print(f"{len(seen) / elapsed:,.0f} events/s")


if __name__ == "__main__":
    asyncio.run(main())
