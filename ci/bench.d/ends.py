"""The clients in front of nginx and the server behind it, in one thread, so that a sample sees
both at the same moment. What nginx holds idle is then known without asking nginx."""

import collections
import itertools
import re
import select
import socket
import time

# Clients.
AT_ONCE = 12
# Seconds: between samples; without an event, until all is over; with none, until it has failed.
SAMPLE = 0.02
QUIET = 0.3
PATIENCE = 10

RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"
    b"Connection: keep-alive\r\n\r\nok"
)


class Connection:
    """One that nginx has opened to the server."""

    def __init__(self, accepted):
        self.socket = accepted
        self.host = None


class Asking:
    """A client with its request, until nginx has closed the connection."""

    def __init__(self, connected, host):
        self.socket = connected
        self.host = host
        self.response = b""


class Ends:
    """Both of them. `port` is the server's; `nginx_port` is to be set before the first request."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.nginx_port = None
        self.epoll = select.epoll()
        self.handlers = {}
        self.watch(self.listener, self.accept)
        # Those that no client has asked for yet.
        self.hosts = iter(())
        # Connections by the host of their last request, and clients by theirs.
        self.connections = collections.Counter()
        self.clients = collections.Counter()
        self.next_sample = 0
        self.most = self.most_of_one = 0
        self.forget()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.epoll.close()

    def forget(self):
        """Requests count from here on; samples count all the time."""
        self.requests = self.reused = 0
        self.workers = set()

    def ask(self, hosts):
        """A request for each host, on a connection of its own, some at once."""
        self.hosts = iter(hosts)
        for host in itertools.islice(self.hosts, AT_ONCE):
            self.connect(host)
        while self.clients.total():
            if not self.turn(PATIENCE):
                raise RuntimeError(f"{self.clients.total()} requests are not answered")

    def rest(self):
        """Waits until nginx opens and closes nothing any more. Returns how many connections
        there are then, and how many of one host at most."""
        end = time.monotonic() + PATIENCE
        while self.turn(QUIET):
            if time.monotonic() > end:
                raise RuntimeError("nginx does not come to rest")
        self.sample()
        return self.connections.total(), max(self.connections.values(), default=0)

    def turn(self, seconds):
        """Handles what has happened, at once or within this time; false if it is nothing."""
        events = self.epoll.poll(seconds)
        for fd, _ in events:
            self.handlers[fd]()
        if time.monotonic() >= self.next_sample:
            self.sample()
        return bool(events)

    def sample(self):
        """Each client that waits for its answer, or for the end of its connection, uses one
        connection to the server at most. So of those that are open, at least as many are idle
        as there are more of them than clients; and likewise of one host. No more than that is
        claimed: with a connection that was closed in time, the end has been seen by now, since
        events are handled in batches, and a client's end comes later."""
        self.next_sample = time.monotonic() + SAMPLE
        self.most = max(self.most, self.connections.total() - self.clients.total())
        for host, connections in self.connections.items():
            # One that has had no request yet is of no host.
            if host is not None:
                self.most_of_one = max(self.most_of_one, connections - self.clients[host])

    def watch(self, sock, handler):
        self.handlers[sock.fileno()] = handler
        self.epoll.register(sock, select.EPOLLIN)

    def close(self, sock):
        self.epoll.unregister(sock)
        del self.handlers[sock.fileno()]
        sock.close()

    # The clients.

    def connect(self, host):
        asking = Asking(socket.create_connection(("127.0.0.1", self.nginx_port), PATIENCE), host)
        asking.socket.sendall(
            f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
        self.clients[host] += 1
        self.watch(asking.socket, lambda: self.answered(asking))

    def answered(self, asking):
        # Once for each event: the end is never seen before what has happened earlier.
        if read := asking.socket.recv(65536):
            asking.response += read
            return
        head, _, body = asking.response.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or body != b"ok":
            raise RuntimeError(f"unexpected response: {asking.response!r}")
        self.workers.add(re.search(rb"\r\nX-Worker: (\d+)", head)[1])
        self.close(asking.socket)
        self.clients[asking.host] -= 1
        if host := next(self.hosts, None):
            self.connect(host)

    # The server.

    def accept(self):
        accepted, _ = self.listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(accepted)
        self.connections[None] += 1
        self.watch(accepted, lambda: self.serve(connection))

    def serve(self, connection):
        request = connection.socket.recv(65536)
        if not request:
            self.close(connection.socket)
            self.connections[connection.host] -= 1
            return
        if request.count(b"\r\n\r\n") != 1:
            raise RuntimeError(f"not one request: {request!r}")
        host = re.search(rb"\r\nHost: (\S+)", request)[1].decode()
        if connection.host not in (None, host):
            raise RuntimeError(f"{host} on a connection of {connection.host}")
        self.requests += 1
        self.reused += connection.host is not None
        self.connections[connection.host] -= 1
        self.connections[host] += 1
        connection.host = host
        connection.socket.sendall(RESPONSE)
