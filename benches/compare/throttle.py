#!/usr/bin/env python3
"""A line between a program and a server: a TCP proxy with a delay and a limited rate, each way.

    benches/compare/throttle.py --to 127.0.0.1:9000 --latency 30 --mbit 200

prints the address it listens on, and runs until it is ended. All connections share the line. The latency is that of a
round trip: half of it each way; a new connection costs one.
"""

import argparse
import asyncio
import time

PIECE = 64 << 10
# Bytes that may be on the line beyond what its rate and delay hold: the buffers of routers and kernels.
SLACK = 256 << 10


class Way:
    """One direction of the line."""

    def __init__(self, delay, rate):
        self.delay, self.rate, self.free_at = delay, rate, 0.0

    def arrival(self, size):
        """When what is sent now is there."""
        self.free_at = max(time.monotonic(), self.free_at) + (size / self.rate if self.rate else 0)
        return self.free_at + self.delay


async def carry(reader, writer, way):
    """Carries one direction of one connection."""
    waiting = asyncio.Queue()
    held = asyncio.Semaphore(max(1, int((way.delay * way.rate + SLACK) / PIECE)) if way.rate else 1024)

    async def send():
        while True:
            arrival, piece = await waiting.get()
            await asyncio.sleep(max(0, arrival - time.monotonic()))
            held.release()
            if not piece:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(piece)
            await writer.drain()

    async def receive():
        while True:
            await held.acquire()
            piece = await reader.read(PIECE)
            waiting.put_nowait((way.arrival(len(piece)), piece))
            if not piece:
                return

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        group.create_task(receive())


async def serve(listen, to, latency, mbit):
    """Listens until cancelled."""
    rate = mbit * 1e6 / 8 if mbit else None
    there, back = Way(latency / 2000, rate), Way(latency / 2000, rate)

    async def connected(reader, writer):
        remote = None
        try:
            await asyncio.sleep(latency / 1000)
            remote_reader, remote = await asyncio.open_connection(*to)
            async with asyncio.TaskGroup() as group:
                group.create_task(carry(reader, remote, there))
                group.create_task(carry(remote_reader, writer, back))
        except* OSError:
            pass  # one end went away; the other is told by closing
        finally:
            for end in (writer, remote):
                if end:
                    end.close()

    server = await asyncio.start_server(connected, *listen)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"{host}:{port}", flush=True)
    await server.serve_forever()


def address(text):
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT")
    return host.strip("[]"), int(port)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--listen", type=address, default=("127.0.0.1", 0), metavar="HOST:PORT")
    parser.add_argument("--to", type=address, required=True, metavar="HOST:PORT")
    parser.add_argument("--latency", type=float, default=0, metavar="MS", help="of a round trip")
    parser.add_argument("--mbit", type=float, default=0, metavar="MBIT", help="each way; 0 for no limit")
    options = parser.parse_args()
    try:
        asyncio.run(serve(options.listen, options.to, options.latency, options.mbit))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
