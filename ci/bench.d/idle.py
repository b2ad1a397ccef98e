"""What the callbacks cost with many idle connections, and what the pool alone costs."""

import os
import random
import resource
import subprocess
import tempfile

from callgrind import Backend, Client, Nginx, count, total
from output import keep, machine, markdown, say, thousands

IDLE = [1, 10, 100, 1000, 10_000]
SIZES = [64, 1024, 16_384, 65_536]
REQUESTS = (200, 600)
OPERATIONS = 100_000

NOTES = """{machine}. One worker, one client connection, as many idle connections as servers, on
addresses 127.x.y.z, with `hash $arg_k consistent`; requests to all of them in random order.
Instructions of `get`, `free`, the close handler, and what they call, for each request, without the
balancer's."""

POOL_NOTES = """Taking a connection out and putting it back, with one connection in each slice, in
an order that is not that of memory. Where the instructions are the same and the time is not, that is
the caches: the misses are of a first-level data cache of 32 KiB, as callgrind simulates it, and
include three for what the benchmark itself looks at."""


def servers(idle, port):
    hosts = (f"127.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(1, idle + 1))
    return "".join(f"server {host}:{port};\n" for host in hosts)


def upstream(idle, port):
    return f"{servers(idle, port)} hash $arg_k consistent; keepalive {idle};"


def find_keys(idle, port):
    """For each server one argument that the balancer sends there."""
    found = {}
    with Nginx(upstream(idle, port)) as nginx:
        client = Client(nginx.port)
        key = 0
        while len(found) < idle:
            found.setdefault(client.get(path=f"/?k={key}"), key)
            key += 1
    return list(found.values())


def all_servers(keys):
    """One request to each, and then so many more."""

    def run(client, requests):
        for key in keys:
            client.get(path=f"/?k={key}")
        order = random.Random(0)
        for _ in range(requests):
            client.get(path=f"/?k={order.choice(keys)}")

    return run


def table():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    callbacks()
    pool()


def callbacks():
    figures = []
    with Backend() as backend:
        for idle in IDLE:
            say(f"looking for a key of each of {idle} servers")
            run = all_servers(find_keys(idle, backend.port))
            counts = [
                count(
                    f"{name}, {idle} idle",
                    upstream(idle, backend.port),
                    run,
                    REQUESTS,
                    # The backend has no files for more connections.
                    at_once=1,
                    module=module,
                )
                for name, module in [("built-in", None), ("sliced", os.environ["BENCH_MODULE"])]
            ]
            figures.append((idle, *(each.callbacks for each in counts)))
    keep("idle", figures)

    ten = dict((idle, ours) for idle, _, ours in figures)[10]
    rows = [
        [thousands(idle), thousands(builtin), thousands(ours), f"{ours / ten:.2f}"]
        for idle, builtin, ours in figures
    ]
    columns = ["idle connections", "built-in", "sliced", "of that with 10"]
    title = "Idle: instructions of the callbacks for each request"
    markdown(title, columns, rows, NOTES.format(machine=machine()))


def pool():
    rows, first = [], None
    for size in SIZES:
        say(f"counting the pool, {size} connections in as many slices")
        instructions, misses = (
            (last - start) / OPERATIONS
            for start, last in zip(count_pool(size, 0), count_pool(size, OPERATIONS))
        )
        first = first or instructions
        rows.append(
            [
                thousands(size),
                thousands(instructions),
                f"{instructions / first:.3f}",
                f"{misses:.1f}",
                f"{time_pool(size)} ns",
            ]
        )
    columns = ["connections in as many slices", "instructions", "of that with 64", "misses", "time"]
    markdown("Idle: the pool alone, for one take and one put", columns, rows, POOL_NOTES)


def count_pool(size, operations):
    """Instructions and cache misses."""
    with tempfile.NamedTemporaryFile(dir=os.environ["BENCH_DIR"]) as out:
        subprocess.run(
            ["valgrind", "--quiet", "--tool=callgrind", "--cache-sim=yes", "--D1=32768,8,64"]
            + ["--callgrind-out-file=" + out.name]
            + [os.environ["BENCH_POOL"], str(size), str(size), str(operations)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        events = total(out.name)
    return events["Ir"], events["D1mr"] + events["D1mw"]


def time_pool(size):
    """Nanoseconds of an operation: the shortest of five runs."""
    command = [os.environ["BENCH_POOL"], str(size), str(size), "1000000"]
    runs = (subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(5))
    return min(float(run.stdout) for run in runs)
