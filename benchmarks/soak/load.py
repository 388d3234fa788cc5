"""The load: ``python -m benchmarks.soak.load LOOP CERTIFICATE CONNECTIONS RATE``.

After these stand the seconds that an answer may take, and the server's ports as
JSON. Each of the connections is an actor that thinks, exchanges a message, and after
some of these ends its connection in one way or another, to open the next.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import ssl
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from ..child import answer
from .chores import Chores
from .clients import CLIENTS, Client, Surroundings
from .inside import figures, obey, run, trim
from .wire import Account, Damage

SHARES = {
    "http": 0.3,
    "websocket": 0.2,
    "tls": 0.2,
    "stream": 0.1,
    "protocol": 0.1,
    "datagram": 0.1,
}
OPENING_AT_ONCE = 100
EXCHANGES = 6  # of a connection, on average
LAG_STEPS = 8  # of the histogram, for each doubling


def wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class Load:
    """All actors, and what they found."""

    def __init__(
        self,
        account: Account,
        around: Surroundings,
        connections: int,
        rate: float,
        patience: float,
    ) -> None:
        self.account = account
        self.around = around
        self.connections = connections
        self.rate = rate
        self.patience = patience
        self.opening = asyncio.Semaphore(OPENING_AT_ONCE)
        self.going = asyncio.Event()
        self.stopping = asyncio.Event()
        self.actors: list[asyncio.Task[None]] = []
        self.sleepers: set[asyncio.Future[None]] = set()
        self.open = 0
        self.busy = 0
        self.latencies: Counter[int] = Counter()
        self.chores = Chores(account)

    def start(self) -> None:
        """Open all connections."""
        for kind, share in SHARES.items():
            for _ in range(round(share * self.connections)):
                self.actors.append(asyncio.create_task(self.act(CLIENTS[kind])))

    async def act(self, kind: type[Client]) -> None:
        """Open connections, one after the other."""
        while not self.stopping.is_set():
            client = kind(self.account, self.around)
            try:
                async with self.opening, asyncio.timeout(self.patience):
                    await client.open()
                self.open += 1
                try:
                    await self.use(client)
                finally:
                    self.open -= 1
                    await client.clean_up()
            except (Damage, OSError, EOFError, TimeoutError, ValueError) as exc:
                self.account.error(kind.name, exc)
                await asyncio.sleep(1.0)

    async def use(self, client: Client) -> None:
        """Exchange some messages and end the connection."""
        while random.random() > 1 / EXCHANGES:
            await self.think()
            if self.stopping.is_set():
                break
            await self.timed(client.exchange)
        else:
            await self.think()
        if self.stopping.is_set():
            await self.timed(client.end_orderly)
            return
        way = random.choice(client.endings)
        self.account.add(f"{client.name} ended: {way.__name__.removeprefix('end_')}")
        await self.timed(lambda: way(client), measured=False)

    async def think(self) -> None:
        """Wait for a random time, and for as long as the load stands still."""
        loop = asyncio.get_running_loop()
        sleeper = loop.create_future()
        self.sleepers.add(sleeper)
        seconds = random.expovariate(self.rate / len(self.actors))
        alarm = loop.call_later(seconds, wake, sleeper)
        try:
            if not self.stopping.is_set():
                await sleeper
        finally:
            alarm.cancel()
            self.sleepers.discard(sleeper)
        await self.going.wait()

    async def timed(
        self, action: Callable[[], Awaitable[None]], measured: bool = True
    ) -> None:
        """Do something with the peer, under a limit."""
        self.busy += 1
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.patience):
                await action()
        finally:
            self.busy -= 1
        if measured:
            took = time.monotonic() - began
            self.latencies[round(LAG_STEPS * math.log2(max(took, 1e-6) * 1e6))] += 1

    def percentile(self, share: float) -> float:
        """Return a latency since the last sample, in milliseconds."""
        left = share * self.latencies.total()
        for step in sorted(self.latencies):
            left -= self.latencies[step]
            if left <= 0:
                return float(2 ** (step / LAG_STEPS) / 1e3)
        return 0.0

    async def sample(self) -> dict[str, Any]:
        """Say how it looks inside."""
        found = figures(self.account)
        found.update(open=self.open, busy=self.busy)
        found.update(p50=self.percentile(0.5), p99=self.percentile(0.99))
        self.latencies.clear()
        return found

    async def go(self) -> dict[str, Any]:
        """Begin, or go on."""
        self.chores.go()
        self.going.set()
        return {}

    async def quiet(self) -> dict[str, Any]:
        """Stand still, with every connection open and nothing under way."""
        self.going.clear()
        if not self.actors:
            self.start()
        await self.chores.stop()
        deadline = time.monotonic() + self.patience
        while self.busy or self.open < len(self.actors):
            if time.monotonic() > deadline:
                stuck = RuntimeError(f"{self.busy} busy, {self.open} open")
                self.account.error("not quiet", stuck)
                break
            await asyncio.sleep(0.01)
        trim()
        return await self.sample()

    async def stop(self) -> dict[str, Any]:
        """End every connection in an orderly way."""
        self.stopping.set()
        self.going.set()
        for sleeper in self.sleepers:
            wake(sleeper)
        _, late = await asyncio.wait(self.actors, timeout=self.patience)
        if late:
            self.account.error("not ended", RuntimeError(f"{len(late)} actors"))
        for task in late:
            task.cancel()
        for actor in await asyncio.gather(*self.actors, return_exceptions=True):
            if isinstance(actor, Exception):
                self.account.error("actor", actor)
        await self.around.close()
        return await self.sample()


async def main(account: Account) -> None:
    """Load until standard input ends."""
    certificate, connections, rate, patience, ports = sys.argv[2:]
    context = ssl.create_default_context(cafile=certificate)
    around = Surroundings(json.loads(ports), context)
    load = Load(account, around, int(connections), float(rate), float(patience))
    answer({})
    await obey(
        {"sample": load.sample, "go": load.go, "quiet": load.quiet, "stop": load.stop}
    )


if __name__ == "__main__":
    run(sys.argv[1], main)
