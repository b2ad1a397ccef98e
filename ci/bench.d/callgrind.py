"""Counts the instructions of an nginx worker, by valgrind's callgrind."""

import concurrent.futures
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

from output import say

HERE = os.path.dirname(os.path.abspath(__file__))


class Backend:
    """backend.py, as long as the context lasts; `port` is where it listens."""

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, f"{HERE}/backend.py"], stdout=subprocess.PIPE, text=True
        )
        self.port = int(self.process.stdout.readline())
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def free_port():
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Client:
    """One connection to nginx, on which requests follow each other."""

    def __init__(self, port, seconds=300):
        end = time.monotonic() + seconds
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
                break
            except ConnectionRefusedError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, host="localhost", path="/"):
        """The body of a response with the status 200."""
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: curl/8.0\r\n"
            "Accept: */*\r\n\r\n".encode()
        )
        response = b""
        while True:
            read = self.socket.recv(65536)
            if not read:
                raise RuntimeError(f"nginx closed the connection after {response!r}")
            response += read
            head, end, body = response.partition(b"\r\n\r\n")
            if not end:
                continue
            if not head.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"unexpected response: {response!r}")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            if len(body) >= int(length[1]):
                return body.decode()


class Nginx:
    """nginx, in a folder of its own under BENCH_DIR, as long as the context lasts."""

    def __init__(
        self,
        upstream,
        wrapper=(),
        module=None,
        unused=0,
        uri="",
        server="",
        workers=None,
        scheme="http",
        servers="",
    ):
        self.directory = tempfile.mkdtemp(dir=os.environ["BENCH_DIR"])
        self.wrapper = wrapper
        self.port = free_port()
        load = f"load_module {module};" if module else ""
        others = "".join(f"upstream unused{i} {{ server 127.0.0.1; }}\n" for i in range(unused))
        processes, listen = "master_process off;", ""
        if workers:
            # Each with a queue of its own, into which the kernel puts connections by chance:
            # otherwise few workers take most of them.
            # callgrind's file is written by the worker.
            user = "root" if wrapper else "nobody nogroup"
            processes, listen = f"user {user}; worker_processes {workers};", "reuseport"
        with open(f"{self.directory}/nginx.conf", "w") as file:
            file.write(
                f"""{load}
daemon off;
{processes}
pid {self.directory}/nginx.pid;
error_log {self.directory}/error.log;
events {{ worker_connections 19000; }}
http {{
    access_log {self.directory}/access.log;
    keepalive_requests 100000000;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    {others}
    upstream u {{
        {upstream}
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{self.port} {listen};
        location / {{ proxy_pass {scheme}://u{uri}; }}
        {server}
    }}
    {servers}
}}
"""
            )

    def __enter__(self):
        command = [*self.wrapper, os.environ["BENCH_NGINX"]]
        command += ["-p", self.directory, "-c", f"{self.directory}/nginx.conf"]
        command += ["-e", f"{self.directory}/error.log"]
        with open(f"{self.directory}/stderr", "w") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr, stdout=stderr)
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGQUIT)
        # nginx may have been about to wait for events, and a signal is none.
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionError:
            pass
        status = self.process.wait(120)
        with open(f"{self.directory}/error.log") as log:
            bad = [line for line in log if re.search(r"\[(alert|crit|emerg)\]", line)]
        if kind is not None:
            say("".join(bad) or f"nginx ended with {status}")
        elif status != 0 or bad:
            raise RuntimeError(f"nginx ended with {status}: {bad}")


class Counts:
    """Instructions, of all functions by their names, with what they call."""

    # The callbacks, and what they call of the balancer, which is not keepalive's.
    CALLBACKS = re.compile(
        r"ngx_http_upstream_(init|get|free)_keepalive_peer|ngx_http_upstream_keepalive_close_handler"
        r"|ngx_http_upstream_sliced_keepalive_module::(peer::(init|get|free)|idle::close_handler)"
    )
    BALANCER = re.compile(r"ngx_http_upstream_(init|get|free)_(round_robin|chash)_peer")

    def __init__(self, functions, worker):
        self.functions = functions
        self.worker = worker

    @classmethod
    def read(cls, path):
        """Reads what callgrind has written."""
        text = subprocess.run(
            ["callgrind_annotate", "--inclusive=yes", "--threshold=100", "--show-percs=no", path],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        functions, worker = {}, 0
        for line in text.splitlines():
            if total := re.match(r"\s*([\d,]+)\s+PROGRAM TOTALS", line):
                worker = number(total[1])
            elif function := re.match(r"\s*([\d,]+)\s+\S*?:(\S.*?)(?: \[.*\])?$", line):
                # A function has a line for each file that it has code from.
                name = function[2]
                functions[name] = max(functions.get(name, 0), number(function[1]))
        return cls(functions, worker)

    def per_request(self, short, requests):
        """What each request more has cost than in a shorter run."""
        functions = {
            name: (count - short.functions.get(name, 0)) / requests
            for name, count in self.functions.items()
        }
        return Counts(functions, (self.worker - short.worker) / requests)

    def _sum(self, pattern):
        return sum(count for name, count in self.functions.items() if pattern.fullmatch(name))

    @property
    def callbacks(self):
        """The keepalive callbacks' share."""
        balancer = self._sum(self.BALANCER)
        # One balancer initialises another one.
        if "ngx_http_upstream_init_chash_peer" in self.functions:
            balancer -= self.functions["ngx_http_upstream_init_round_robin_peer"]
        return self._sum(self.CALLBACKS) - balancer


def number(text):
    return int(text.replace(",", ""))


def total(path):
    """All events that callgrind has counted, by their names."""
    with open(path) as file:
        lines = dict(line.strip().split(": ", 1) for line in file if ": " in line)
    return dict(zip(lines["events"].split(), map(int, lines["summary"].split())))


def in_rotation(keys):
    """Requests with as many different hosts, over and over again."""

    def run(client, requests):
        for i in range(requests):
            client.get(host=f"h{i % keys:05}.example.com")

    return run


def never_again(client, requests):
    """Requests with a new host each time."""
    for i in range(requests):
        client.get(host=f"h{i:05}.example.com")


def count(name, upstream, run, lengths=(1000, 3000), at_once=2, **options):
    """The counts of each request: the difference of two runs of nginx, for each of which
    `run` is called with a client and the number of requests."""
    say(f"counting {name}")

    def one(length):
        with tempfile.TemporaryDirectory(dir=os.environ["BENCH_DIR"]) as out:
            file = f"--callgrind-out-file={out}/%p"
            with Nginx(upstream, ["valgrind", "--quiet", "--tool=callgrind", file], **options) as nginx:
                run(Client(nginx.port), length)
            # Of a master and its worker, the worker has the callbacks.
            counts = [Counts.read(f"{out}/{process}") for process in os.listdir(out)]
            return max(counts, key=lambda one: one.callbacks)

    with concurrent.futures.ThreadPoolExecutor(at_once) as executor:
        short, long = executor.map(one, lengths)
    return long.per_request(short, lengths[1] - lengths[0])
