"""Fails if the callbacks or the pool cost more instructions than they may."""

import os
import subprocess
import sys

from callgrind import Backend, count, free_port, in_rotation, never_again
from idle import count_pool

CEILINGS = "ci/bench.d/ceilings"

SLICED = "keepalive 100 slice_key=$host slice_conn=8 slice_poolsize=100;"
CASES = {
    "plain": ("keepalive 100;", in_rotation(1)),
    "one_key": (SLICED, in_rotation(1)),
    "keys": (SLICED, in_rotation(100)),
    "new_keys": (SLICED, never_again),
}


def tls():
    """A server with TLS, in the same nginx, and a location that uses it."""
    port, directory = free_port(), os.environ["BENCH_DIR"]
    names = [f"{directory}/tls.{kind}" for kind in ("crt", "key")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
        + ["-out", names[0], "-keyout", names[1]],
        check=True,
        capture_output=True,
    )
    certificate = f"ssl_certificate {names[0]}; ssl_certificate_key {names[1]};"
    return {
        "upstream": f"server 127.0.0.1:{port}; keepalive 100;",
        "scheme": "https",
        "server": "proxy_ssl_server_name on;",
        "servers": f"server {{ listen 127.0.0.1:{port} ssl; {certificate} return 200 ok; }}",
    }


def counted():
    """The instructions of each case."""
    module = os.environ["BENCH_MODULE"]
    with Backend() as backend:
        for name, (keepalive, run) in CASES.items():
            upstream = f"server 127.0.0.1:{backend.port}; {keepalive}"
            yield name, count(name, upstream, run, (200, 600), module=module).callbacks
    # One after the other, since they listen on the same port.
    options = {"run": in_rotation(1), "lengths": (200, 600), "at_once": 1, "module": module}
    yield "tls", count("tls", **tls(), **options).callbacks
    operations = 10_000
    for size in (64, 65_536):
        (start, _), (end, _) = count_pool(size, 0), count_pool(size, operations)
        yield f"pool_{size}", (end - start) / operations


def table():
    with open(CEILINGS) as file:
        lines = (line.split() for line in file if not line.startswith("#"))
        ceilings = {name: int(ceiling) for name, ceiling in lines}
    above = []
    for name, instructions in counted():
        ceiling = ceilings.pop(name)
        print(f"{name:10} {instructions:8.1f}  ceiling {ceiling}", flush=True)
        if instructions > ceiling:
            above.append(name)
    if ceilings:
        sys.exit(f"bench: ceilings of nothing: {' '.join(ceilings)}")
    if above:
        sys.exit(f"bench: above the ceiling: {' '.join(above)}")
