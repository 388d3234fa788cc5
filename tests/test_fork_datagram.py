"""A fork between datagrams that were received together."""

from __future__ import annotations

from test_fork import fork_script, ours_only


def test_what_was_answered_before_leaves_once(loop_kind: str) -> None:
    """The answers wait for the end of the batch, and the child has them, too."""
    ours_only(loop_kind)
    lines = fork_script(
        loop_kind,
        """
        import collections

        class Answers(asyncio.DatagramProtocol):
            count = 0
            def connection_made(self, transport):
                self.transport = transport
            def datagram_received(self, data, address):
                self.count += 1
                self.transport.sendto(b"%d" % self.count, target)
                if self.count == 25:
                    pid = os.fork()
                    if pid == 0:
                        self.transport.pause_reading()
                        loops[0].call_later(0.02, os._exit, 0)
                    else:
                        pids.append(pid)
                if self.count == self.arrived[0]:
                    self.arrived[1].set_result(None)

        async def main():
            loop = asyncio.get_running_loop()
            loops.append(loop)
            transport, answers = await loop.create_datagram_endpoint(
                Answers, local_addr=("127.0.0.1", 0))
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            for total in (20, 40):  # the second time they come in one batch
                for _ in range(20):
                    sender.sendto(b"x", transport.get_extra_info("sockname"))
                answers.arrived = total, loop.create_future()
                await answers.arrived[1]
            os.waitpid(pids[0], 0)
            sender.close()
            transport.close()

        pids, loops = [], []
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.bind(("127.0.0.1", 0))
        sink.setblocking(False)
        target = sink.getsockname()
        run(main())
        found = collections.Counter()
        try:
            while True:
                found[int(sink.recv(100))] += 1
        except BlockingIOError:
            pass
        sink.close()
        print([n for n in range(1, 25) if found[n] != 1])
        """,
    )
    assert lines == ["[]"]
