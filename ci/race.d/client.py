"""What the load generators of ci/race have in common: a client of HTTP."""

import asyncio
import collections

ANSWER_LIMIT = 10.0

# The status is "closed" if there was none, or "none" if it took too long. The times are those of the
# event loop. The peer is what the server sees as the address of its client.
Answer = collections.namedtuple("Answer", "status peer sent answered")


class Client(asyncio.Protocol):
    """A connection that sends one request after the other."""

    def __init__(self, port, headers=""):
        self.port = port
        self.headers = headers
        self.transport = None
        self.pending = None
        self.received = b""
        # Set when the connection is closed, to the time.
        self.closed = None

    def connection_lost(self, exc):
        self.transport = None
        self.finish("closed")
        if not self.closed.done():
            self.closed.set_result(asyncio.get_running_loop().time())

    def data_received(self, data):
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        status, *lines = head.split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines)
        if b"content-length" in headers:
            complete = len(body) >= int(headers[b"content-length"])
        else:
            complete = body.endswith(b"0\r\n\r\n")
        if complete:
            self.finish(status.split()[1].decode(), headers.get(b"x-peer", b"").decode())

    def finish(self, status, peer=""):
        if self.pending and not self.pending.done():
            self.pending.set_result((status, peer))

    async def request(self, method="POST", headers=""):
        """Sends a request, and returns its Answer."""
        loop = asyncio.get_running_loop()
        if self.transport is None:
            self.closed = loop.create_future()
            await loop.create_connection(lambda: self, "127.0.0.1", self.port)
        body = "name=value" if method == "POST" else ""
        self.received = b""
        self.pending = loop.create_future()
        sent = loop.time()
        self.transport.write(
            f"{method} / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n{self.headers}{headers}\r\n{body}".encode()
        )
        try:
            status, peer = await asyncio.wait_for(self.pending, ANSWER_LIMIT)
        except asyncio.TimeoutError:
            self.transport.abort()
            self.transport = None
            status, peer = "none", ""
        return Answer(status, peer, sent, loop.time())

    def connection_made(self, transport):
        self.transport = transport


class Addresses:
    """Addresses of this machine. nginx opens each connection from another one, so if a peer has sent a
    request before, its connection was reused."""

    def __init__(self):
        self.used = 0

    def next(self):
        number = self.used
        self.used += 1
        return f"127.{64 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


async def until(time):
    await asyncio.sleep(max(0.0, time - asyncio.get_running_loop().time()))
