"""aiomqtt on a Mosquitto broker: paho's socket under add_reader() and add_writer()."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from typing import Any

import aiomqtt
import pytest

import services
from support import turns

PATIENCE = 50  # seconds; a loaded machine may be slow


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def client_of(server: services.Mosquitto, **options: Any) -> aiomqtt.Client:
    options = {"port": server.port, "timeout": PATIENCE, **options}
    return aiomqtt.Client(services.LOOPBACK, **options)


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_topics(mosquitto: services.Mosquitto, qos: int, loop: Any) -> None:
    async with client_of(mosquitto) as publisher, client_of(mosquitto) as subscriber:
        await subscriber.subscribe("house/+/light", qos=qos)
        await subscriber.subscribe("end", qos=qos)
        await publisher.publish("house/kitchen/noise", b"nobody hears this", qos=qos)
        for number in range(300):
            await publisher.publish("house/hall/light", b"%d" % number, qos=qos)
        await publisher.publish("end", qos=qos)
        found = []
        async for message in subscriber.messages:
            if message.topic.matches("end"):
                break
            assert str(message.topic) == "house/hall/light"
            found.append(int(message.payload))
        assert found == list(range(300))


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
async def test_big_messages(
    mosquitto: services.Mosquitto, tls: Any, kind: str, loop: Any
) -> None:
    options: dict[str, Any] = {}
    if kind == "tls":
        options = {"port": mosquitto.tls_port, "tls_context": tls[1]}
    elif kind == "unix":
        options = {"transport": "unix"}
    payloads = [random.Random(seed).randbytes(1_500_000) for seed in range(6)]
    publisher = client_of(mosquitto, **options)
    subscriber = client_of(mosquitto, **options)
    if kind == "unix":
        path = f"{mosquitto.folder}/socket"
        publisher = aiomqtt.Client(path, timeout=PATIENCE, transport="unix")
        subscriber = aiomqtt.Client(path, timeout=PATIENCE, transport="unix")
    async with publisher, subscriber:
        await subscriber.subscribe("big", qos=1)
        sending = asyncio.gather(
            *(publisher.publish("big", payload, qos=1) for payload in payloads)
        )
        found = set()
        async for message in subscriber.messages:
            found.add(digest(message.payload))
            if len(found) == 6:
                break
        assert found == set(map(digest, payloads))
        await sending


async def test_many_clients(mosquitto: services.Mosquitto, loop: Any) -> None:
    """Each one speaks once and hears all."""
    ready = asyncio.Barrier(20)

    async def client(number: int) -> list[int]:
        async with client_of(mosquitto) as own:
            await own.subscribe("round", qos=1)
            await ready.wait()
            await own.publish("round", b"%d" % number, qos=1)
            found: list[int] = []
            async for message in own.messages:
                found.append(int(message.payload))
                if len(found) == 20:
                    return found
        raise AssertionError("the messages ended")

    results = await asyncio.gather(*(client(number) for number in range(20)))
    assert all(sorted(found) == list(range(20)) for found in results)


async def test_waiting_is_cancelled(mosquitto: services.Mosquitto, loop: Any) -> None:
    async with client_of(mosquitto) as publisher, client_of(mosquitto) as subscriber:
        await subscriber.subscribe("kept", qos=1)
        for count in range(5):
            task = asyncio.create_task(anext(aiter(subscriber.messages)))
            await turns(count)
            await cancel(task)
        await publisher.publish("kept", b"message", qos=1)
        message = await anext(aiter(subscriber.messages))
        assert message.payload == b"message"


async def test_a_will_is_carried_out(mosquitto: services.Mosquitto, loop: Any) -> None:
    will = aiomqtt.Will("testament", b"gone", qos=1)
    async with client_of(mosquitto) as heir:
        await heir.subscribe("testament", qos=1)
        with contextlib.suppress(aiomqtt.MqttError):
            async with client_of(mosquitto, will=will) as mortal:
                mortal._client.socket().shutdown(2)
                await anext(aiter(mortal.messages))
        message = await anext(aiter(heir.messages))
        assert message.payload == b"gone"


async def test_the_broker_comes_back(mosquitto: services.Mosquitto, loop: Any) -> None:
    for stop in (mosquitto.stop, mosquitto.kill):
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(pytest.raises(aiomqtt.MqttError))
            client = await stack.enter_async_context(client_of(mosquitto))
            await client.subscribe("lasting")
            waiting = asyncio.create_task(anext(aiter(client.messages)))
            await turns(3)
            await asyncio.to_thread(stop)
            with pytest.raises(aiomqtt.MqttError, match="Disconnected"):
                await waiting
            await client.publish("lasting", b"nobody is there", qos=1)
        with pytest.raises(aiomqtt.MqttError):
            async with client_of(mosquitto):
                pass
        await asyncio.to_thread(mosquitto.start)
        async with client_of(mosquitto) as client:
            await client.subscribe("lasting")
            await client.publish("lasting", b"again")
            assert (await anext(aiter(client.messages))).payload == b"again"
