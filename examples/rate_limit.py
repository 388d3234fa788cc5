"""Two limits on calls to a service: how many at once, and how many per second.

Plain asyncio code: nothing here knows which event loop runs it.

    python examples/rate_limit.py                              asyncio's loop
    python examples/run_with.py hotloop examples/rate_limit.py

A semaphore bounds the calls in flight. A token bucket allows a burst, and a steady
rate after it; it computes when each caller may go on, so that no task runs to fill
the bucket and every caller sleeps once, in order of arrival.
"""

from __future__ import annotations

import argparse
import asyncio
import time


class TokenBucket:
    """Lets `burst` callers through at once, then `rate` of them per second."""

    def __init__(self, rate: float, burst: int) -> None:
        self.interval = 1 / rate
        self.allowance = burst * self.interval
        self.next = 0.0  # when the bucket would be full, if nobody else came

    async def acquire(self) -> None:
        now = asyncio.get_running_loop().time()
        self.next = max(self.next, now) + self.interval
        delay = self.next - self.allowance - now
        if delay > 0:
            await asyncio.sleep(delay)


class Service:
    """Notes how it is used."""

    def __init__(self) -> None:
        self.running = self.most = self.calls = 0
        self.times: list[float] = []

    async def call(self, number: int) -> int:
        self.times.append(asyncio.get_running_loop().time())
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            return number + 1
        finally:
            self.running -= 1

    def obeyed(self, rate: float, burst: int) -> bool:
        """Whether no call came before the bucket could have had its token."""
        tolerance = 0.002  # some loops count in milliseconds
        return all(
            moment - self.times[0] >= (number - burst) / rate - tolerance
            for number, moment in enumerate(self.times)
        )


async def call_all(
    service: Service, numbers: range, slots: asyncio.Semaphore, bucket: TokenBucket
) -> list[int]:
    async def call(number: int) -> int:
        # The token first: a caller that waits for its time holds no slot.
        await bucket.acquire()
        async with slots:
            return await service.call(number)

    return list(await asyncio.gather(*(call(number) for number in numbers)))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=50_000, help="unlimited calls")
    options = parser.parse_args()

    rate, burst = 1000.0, 50
    service = Service()
    limits = asyncio.Semaphore(10), TokenBucket(rate, burst)
    await call_all(service, range(250), *limits)
    print(f"{service.calls} calls, at most {service.most} at once")
    print(f"a burst of {burst}, then the rate: {service.obeyed(rate, burst)}")

    service = Service()
    started = time.perf_counter()
    limits = asyncio.Semaphore(100), TokenBucket(1e9, 1000)
    results = await call_all(service, range(options.count), *limits)
    elapsed = time.perf_counter() - started
    right = results == list(range(1, options.count + 1))
    print(f"{options.count} calls with room for all, results in order: {right}")
    print(f"{options.count / elapsed:,.0f} calls/s")


if __name__ == "__main__":
    asyncio.run(main())
