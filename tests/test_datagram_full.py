"""A network that takes no more: ENOBUFS, provoked in a namespace of its own."""

from __future__ import annotations

import ast
import sys

import pytest

from support import run_script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's namespaces")

# The loopback of a network of the script's own passes about one datagram of a
# kilobyte, and refuses the rest as a full device does.
NETWORK = """
import ctypes, errno, subprocess
CLONE_NEWNET = 0x40000000
IP_RECVERR = 11

def narrow():
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        return "unshare(): " + os.strerror(ctypes.get_errno())
    queue = "tc qdisc replace dev lo root tbf rate 8bit burst 1600 limit 1600"
    for command in ("ip link set lo up", queue):
        try:
            subprocess.run(command.split(), check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return f"{command}: {error}"

class Sender(asyncio.DatagramProtocol):
    def __init__(self):
        self.heard = []
    def error_received(self, error):
        self.heard.append((type(error).__name__, error.errno == errno.ENOBUFS))
    def connection_lost(self, error):
        self.heard.append(error)

async def endpoint(receiver, connected):
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    sock.setblocking(False)
    if connected:
        sock.connect(receiver.getsockname())
    else:
        sock.bind(("127.0.0.1", 0))
    return await loop.create_datagram_endpoint(Sender, sock=sock)

async def main():
    found = narrow()
    if found:
        print(repr(found))
        return
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    result = []
    for connected in (False, True):
        transport, sender = await endpoint(receiver, connected)
        target = None if connected else receiver.getsockname()
        for size in sizes:
            transport.sendto(bytes(size), target)
        await asyncio.sleep(0.05)
        result.append((sender.heard[:], transport.get_write_buffer_size()))
        assert not transport.is_closing()
        transport.close()
        await asyncio.sleep(0.01)
        assert sender.heard[-1] is None
    receiver.setblocking(False)
    arrived = 0
    try:
        while receiver.recv(2000):
            arrived += 1
    except BlockingIOError:
        pass
    receiver.close()
    print(repr((arrived, result)))

run(main())
"""


@pytest.mark.parametrize(
    "sizes", [[1000] * 6, [1000, 999] * 10], ids=["equal", "mixed"]
)
def test_refused_datagrams_are_told(loop_kind: str, sizes: list[int]) -> None:
    """One error_received() for each that was refused; the transport lives on."""
    out, _ = run_script(loop_kind, f"sizes = {sizes}\n" + NETWORK)
    told = ast.literal_eval(out)
    if isinstance(told, str):
        pytest.skip(f"no network of our own: {told}")
    arrived, (unconnected, connected) = told
    refused = ("OSError", True)
    # The first one passes, the second waits in the queue, the rest is too much.
    assert arrived == 1
    assert unconnected == ([refused] * (len(sizes) - 2), 0)
    assert connected == ([refused] * len(sizes), 0)
