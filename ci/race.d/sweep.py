"""The load generator of ci/race: sweep.py VARIANT=PORT... -- SERVER...

In front of each server is an nginx of each variant, on the variant's port, which chooses the server by
the Host header. A burst of POSTs opens connections to the server; then they are idle for the server's
timeout, a little less or a little more; then each client sends its next POST, which is the one that
counts. All of this for each difference from the timeout, and for each server and variant.

Prints for each of them: server, variant, POSTs, answers 502, other answers than 200 and 502, failures
in the bursts before, and bursts that were too slow; to the standard error, what failed in each step.
"""

import asyncio
import collections
import sys

TIMEOUT = 2.0
# In milliseconds. Where connections are closed, which takes a server only a part of a step, bursts are
# repeated until some of them have met it.
STEP = 10
REPEATED = {-10: 3, 0: 20, 10: 3}
DIFFERENCES = [
    difference
    for difference in range(-200, 201, STEP)
    for _ in range(REPEATED.get(difference, 1))
]
CLIENTS = 50
# Seconds between the bursts of two pairs of server and variant, so that these do not meet.
STAGGER = 0.05
ANSWER_LIMIT = 10.0


class Client(asyncio.Protocol):
    """A connection to nginx that sends one POST after the other."""

    def __init__(self, port, server, variant, number):
        self.port = port
        # Each client takes a part of the step.
        self.offset = STEP / 1000 * ((number + 0.5) / CLIENTS - 0.5)
        self.head = (
            f"POST / HTTP/1.1\r\nHost: {server}\r\nX-Variant: {variant}\r\nX-Client: {number}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\nX-Post: "
        )
        self.transport = None
        self.answer = None
        self.received = b""

    def connection_lost(self, exc):
        self.transport = None
        if self.answer and not self.answer.done():
            self.answer.set_result("closed")

    def data_received(self, data):
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        status, *lines = head.split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines)
        if len(body) >= int(headers[b"content-length"]) and not self.answer.done():
            self.answer.set_result(status.split()[1].decode())

    async def post(self, kind):
        """Sends a POST; returns when it was sent, when it was answered, and the status."""
        loop = asyncio.get_running_loop()
        if self.transport is None:
            self.transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self.port)
        self.received = b""
        self.answer = loop.create_future()
        sent = loop.time()
        self.transport.write(f"{self.head}{kind}\r\n\r\nname=value".encode())
        try:
            status = await asyncio.wait_for(self.answer, ANSWER_LIMIT)
        except asyncio.TimeoutError:
            self.transport.abort()
            self.transport = None
            status = "none"
        return sent, loop.time(), status


class Pair:
    """A server behind a variant."""

    def __init__(self, server, variant, port):
        self.server, self.variant = server, variant
        self.clients = [Client(port, server, variant, n) for n in range(CLIENTS)]
        self.answers = collections.Counter()
        self.failed_before = 0
        self.slow = 0

    async def burst(self, start, idle):
        """Returns how many of the POSTs after the idle time failed."""
        await until(start)
        first = await asyncio.gather(*(client.post("first") for client in self.clients))
        # All were under way at the same time, so each had a connection of its own, unless:
        self.slow += max(sent for sent, _, _ in first) > min(answered for _, answered, _ in first)
        self.failed_before += sum(status != "200" for _, _, status in first)

        async def timed(client, answered):
            await until(answered + idle + client.offset)
            return await client.post("timed")

        # Each client waits for as long as its connection is idle.
        second = await asyncio.gather(
            *(timed(client, answered) for client, (_, answered, _) in zip(self.clients, first))
        )
        statuses = collections.Counter(status for _, _, status in second)
        self.answers += statuses
        return statuses.total() - statuses["200"]

    def row(self):
        posts, failed = self.answers.total(), self.answers["502"]
        others = posts - self.answers["200"] - failed
        figures = (self.server, self.variant, posts, failed, others, self.failed_before, self.slow)
        return "\t".join(map(str, figures))


async def until(time):
    await asyncio.sleep(max(0.0, time - asyncio.get_running_loop().time()))


async def sweep(pairs):
    for difference in DIFFERENCES:
        start = asyncio.get_running_loop().time()
        idle = TIMEOUT + difference / 1000
        failed = await asyncio.gather(
            *(pair.burst(start + n * STAGGER, idle) for n, pair in enumerate(pairs))
        )
        by_variant = collections.Counter()
        for pair, count in zip(pairs, failed):
            by_variant[pair.variant] += count
        text = ", ".join(f"{variant} {count}" for variant, count in by_variant.items())
        print(f"idle for {idle:.2f} s: failed: {text}", file=sys.stderr, flush=True)


def main():
    split = sys.argv.index("--")
    variants = [arg.split("=") for arg in sys.argv[1:split]]
    pairs = [
        Pair(server, variant, int(port))
        for server in sys.argv[split + 1:]
        for variant, port in variants
    ]
    asyncio.run(sweep(pairs))
    for pair in pairs:
        print(pair.row())


main()
