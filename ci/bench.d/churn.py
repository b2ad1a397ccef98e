"""Instructions of the callbacks if each request has a new key."""

import os

from callgrind import Backend, count, in_rotation, never_again
from output import markdown, thousands

KEEPALIVE = "keepalive 100 slice_key=$host slice_poolsize=100;"

NOTES = f"""`{KEEPALIVE}`, one client connection. Each new key empties the least recently used slice
and closes its connection, and the request opens a new one. Callbacks are `init`, `get`, `free`, the
close handler and all they call, closing included, without the balancer's."""


def table():
    module = os.environ["BENCH_MODULE"]
    counts = []
    with Backend() as backend:
        upstream = f"server 127.0.0.1:{backend.port}; {KEEPALIVE}"
        for name, run in [
            ("100 keys in rotation", in_rotation(100)),
            ("a new key each time", never_again),
        ]:
            counts.append((name, count(f"churn: {name}", upstream, run, module=module)))

    repeated = counts[0][1]
    rows = [
        [
            name,
            thousands(run.callbacks),
            f"{run.callbacks / repeated.callbacks:.2f}",
            thousands(run.worker),
            f"{run.worker / repeated.worker:.2f}",
        ]
        for name, run in counts
    ]
    columns = ["", "callbacks", "ratio", "worker", "ratio"]
    markdown("Churn: instructions for each request", columns, rows, NOTES)
