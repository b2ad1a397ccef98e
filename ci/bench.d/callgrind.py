"""Counts the instructions of an nginx worker, by valgrind's callgrind."""

import concurrent.futures
import os
import re
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


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

    def __init__(self, port, seconds=60):
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
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
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
    """A single nginx process, in a folder of its own, as long as the context lasts."""

    def __init__(self, directory, upstream, wrapper=(), module=None, connections=8192):
        self.directory = directory
        self.wrapper = wrapper
        self.port = free_port()
        os.makedirs(directory, exist_ok=True)
        load = f"load_module {module};" if module else ""
        with open(f"{directory}/nginx.conf", "w") as file:
            file.write(
                f"""
{load}
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections {connections}; }}
http {{
    access_log {directory}/access.log;
    keepalive_requests 100000000;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_temp_path {directory}/proxy;
    upstream u {{
        {upstream}
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{self.port};
        location / {{ proxy_pass http://u; }}
    }}
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
        # nginx may have been about to wait for events, and the signal is none.
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionError:
            pass
        status = self.process.wait(120)
        with open(f"{self.directory}/error.log") as log:
            bad = [line for line in log if re.search(r"\[(alert|crit|emerg)\]", line)]
        if kind is None and (status != 0 or bad):
            raise RuntimeError(f"nginx ended with {status}: {bad}")


class Counts(dict):
    """Instructions, all together, and of each function with what it calls."""

    @classmethod
    def read(cls, path):
        text = subprocess.run(
            ["callgrind_annotate", "--inclusive=yes", "--threshold=100", "--show-percs=no", path],
            check=True, capture_output=True, text=True,
        ).stdout
        counts = cls()
        for line in text.splitlines():
            if total := re.match(r"\s*([\d,]+)\s+PROGRAM TOTALS", line):
                counts["all"] = int(total[1].replace(",", ""))
            elif function := re.match(r"\s*([\d,]+)\s+\S*?:(\S.*?)(?: \[.*\])?$", line):
                name = function[2].removesuffix("'2")
                counts[name] = max(counts.get(name, 0), int(function[1].replace(",", "")))
        return counts

    def per_request(self, short, requests):
        """What each request more has cost than in a shorter run."""
        return Counts(
            {name: (n - short.get(name, 0)) / requests for name, n in self.items()}
        )


def count(directory, upstream, run, lengths=(1000, 3000), **options):
    """The counts per request: the difference of two runs of nginx side by side, for
    each of which `run` is called with a client and the number of requests."""

    def one(length):
        folder = f"{directory}/{length}"
        out = f"{folder}/callgrind.out"
        wrapper = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}"]
        with Nginx(folder, upstream, wrapper=wrapper, **options) as nginx:
            run(Client(nginx.port), length)
        return Counts.read(out)

    with concurrent.futures.ThreadPoolExecutor() as executor:
        short, long = executor.map(one, lengths)
    return long.per_request(short, lengths[1] - lengths[0])
