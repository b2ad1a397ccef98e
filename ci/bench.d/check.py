"""Fails if the callbacks or the pool cost more instructions than they may."""

import os
import sys

from callgrind import Backend, count, in_rotation, never_again
from idle import count_pool

CEILINGS = "ci/bench.d/ceilings"

SLICED = "keepalive 100 slice_key=$host slice_conn=8 slice_poolsize=100;"
CASES = {
    "plain": ("keepalive 100;", in_rotation(1)),
    "one_key": (SLICED, in_rotation(1)),
    "keys": (SLICED, in_rotation(100)),
    "new_keys": (SLICED, never_again),
}


def counted():
    """The instructions of each case."""
    with Backend() as backend:
        for name, (keepalive, run) in CASES.items():
            upstream = f"server 127.0.0.1:{backend.port}; {keepalive}"
            module = os.environ["BENCH_MODULE"]
            yield name, count(name, upstream, run, (200, 600), module=module).callbacks
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
