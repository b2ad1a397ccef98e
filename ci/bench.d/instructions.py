"""Instructions of a worker for each proxied request."""

import os

from callgrind import Backend, count, in_rotation
from output import keep, machine, markdown, thousands

MODULE = os.environ["BENCH_MODULE"]

ROWS = [
    ("built-in `keepalive 32`", "keepalive 32;", None, 1),
    ("`keepalive 32`", "keepalive 32;", MODULE, 1),
    (
        "`slice_key=$host slice_conn=8`, 1 key",
        "keepalive 32 slice_key=$host slice_conn=8;",
        MODULE,
        1,
    ),
    (
        "`slice_key=$host slice_conn=8`, 1,000 keys",
        "keepalive 2000 slice_key=$host slice_conn=8 slice_poolsize=1000;",
        MODULE,
        1000,
    ),
]

# With a master and one worker, without and with `shared`: each request uses an own connection.
SHARED_ROWS = [
    (f"`{name} {shared}`".replace(" `", "`"), f"{keepalive} {shared};", MODULE, keys)
    for name, keepalive, keys in [
        ("keepalive 32", "keepalive 32", 1),
        ("slice_key=$host slice_conn=8, 1 key", "keepalive 32 slice_key=$host slice_conn=8", 1),
        (
            "slice_key=$host slice_conn=8, 1,000 keys",
            "keepalive 2000 slice_key=$host slice_conn=8 slice_poolsize=1000",
            1000,
        ),
    ]
    for shared in ("", "shared")
]

NOTES = """{machine}. One worker (`master_process off`), one client connection, requests as
curl sends them, responses as nginx sends them; instructions of the whole worker for each request,
and of the keepalive callbacks among them, without the balancer's. The difference of a run of 1,000
requests and one of 3,000, as a mean of {layouts} configurations that differ only in upstreams that
are not used: what malloc does in a request depends on what the configuration has left of the
heap."""

LAYOUTS = 3


SHARED_NOTES = """{machine}. The same with a master and one worker, which always finds a connection of
its own; `shared` beside the same without it."""


def counted(rows, **options):
    """The instructions of a worker and of its callbacks, for each row."""
    with Backend() as backend:
        for name, keepalive, module, keys in rows:
            upstream = f"server 127.0.0.1:{backend.port}; {keepalive}"
            runs = [
                count(
                    f"instructions of {name}, {layout + 1} of {LAYOUTS}",
                    upstream,
                    in_rotation(keys),
                    module=module,
                    unused=layout,
                    **options,
                )
                for layout in range(LAYOUTS)
            ]
            worker = sum(run.worker for run in runs) / LAYOUTS
            callbacks = sum(run.callbacks for run in runs) / LAYOUTS
            yield name, worker, callbacks


def table():
    counts = list(counted(ROWS))
    keep("instructions", counts)
    builtin = counts[0][1]
    rows = [
        [name, thousands(worker), f"{worker / builtin:.3f}", thousands(callbacks)]
        for name, worker, callbacks in counts
    ]
    columns = ["", "worker", "of the built-in's", "callbacks"]
    markdown("Instructions", columns, rows, NOTES.format(machine=machine(), layouts=LAYOUTS))

    counts = list(counted(SHARED_ROWS, workers=1))
    rows = [
        [name, thousands(worker), f"{worker / alone:.3f}", thousands(callbacks)]
        for pair in zip(counts[::2], counts[1::2])
        for alone in [pair[0][1]]
        for name, worker, callbacks in pair
    ]
    columns = ["", "worker", "of the one's without", "callbacks"]
    markdown("Instructions with `shared`", columns, rows, SHARED_NOTES.format(machine=machine()))
