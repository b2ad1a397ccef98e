"""Memory of a worker with keepalive 1000000."""

import os
import re

from callgrind import Backend, Client, Nginx
from output import machine, markdown, say, thousands

CONNECTIONS = 1_000_000

NOTES = """{machine}. An nginx process with one upstream of 1,000,000 connections, after one request;
what it has more than with `keepalive 1`, or for slices, with `slice_poolsize=1`. Reserved is what
the configuration takes of its address space, in bytes for each; resident is what is in memory, of
which the slots that were never used are no part."""


def measure(keepalive, module):
    """The reserved and the resident bytes."""
    with Backend() as backend:
        with Nginx(f"server 127.0.0.1:{backend.port}; {keepalive};", module=module) as nginx:
            Client(nginx.port).get()
            with open(f"/proc/{nginx.process.pid}/status") as file:
                status = file.read()
    return [int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024 for name in ("VmSize", "VmRSS")]


def more(keepalive, base, module):
    say(f"measuring {keepalive}")
    pairs = zip(measure(keepalive, module), measure(base, module))
    return [much - little for much, little in pairs]


def table():
    module = os.environ["BENCH_MODULE"]
    slices = "slice_key=$host slice_keylen=40 slice_poolsize"
    rows = []
    for name, keepalive, base, module in [
        ("built-in", f"keepalive {CONNECTIONS}", "keepalive 1", None),
        ("sliced, each connection", f"keepalive {CONNECTIONS}", "keepalive 1", module),
        (
            "sliced, each slice",
            f"keepalive {CONNECTIONS} {slices}={CONNECTIONS}",
            f"keepalive {CONNECTIONS} {slices}=1",
            module,
        ),
    ]:
        reserved, resident = more(keepalive, base, module)
        rows.append(
            [name, f"{reserved / CONNECTIONS:.1f}", f"{thousands(resident / 1e6, 1)} MB"]
        )
    markdown("Memory", ["", "reserved bytes", "resident"], rows, NOTES.format(machine=machine()))
