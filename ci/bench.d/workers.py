"""Reuse and idle connections by the number of workers, for each worker alone and in common."""

import itertools
import os
import random
import resource
import sys

from callgrind import Client, Nginx
from ends import AT_ONCE, SAMPLE, Ends
from output import machine, markdown, say, thousands

WORKERS = [1, 2, 4, 8, 16, 32]
HOSTS = 200
WARM_UP = 1000
REQUESTS = 5000

MOST, MOST_OF_ONE = 256, 4
LEAST_RATIO = 0.98
KEEPALIVE = f"keepalive {MOST} slice_key=$host slice_conn={MOST_OF_ONE} slice_poolsize={MOST}"
SHARED = f"{KEEPALIVE} shared"

SERVER = """
        proxy_set_header Host $host;
        proxy_set_header Connection "";
        add_header X-Worker $pid;
"""

NOTES = """{machine}. `{keepalive}`, in all workers alike, and the same with `shared`, in turns.
{at_once} clients, each request on a connection of its own, for {hosts} hosts in a Zipf distribution,
the same in each row; {requests} requests after {warm_up}. Workers listen with `reuseport`, so all
of them serve. As the server sees it: requests on a reused connection; the most connections that were
idle in one of the samples, every {sample} ms, of all hosts and of one host (those that are open, less
those that a client may be using); and how many are left when all clients have gone."""


def zipf(requests):
    """Hosts: the second is asked for half as often as the first, and so on."""
    weights = list(itertools.accumulate(1 / rank for rank in range(1, HOSTS + 1)))
    order = random.Random(0)
    return [
        f"h{host:03}.example.com"
        for host in order.choices(range(HOSTS), cum_weights=weights, k=requests)
    ]


class Figures:
    """What was seen with so many workers."""

    def __init__(self, keepalive, workers):
        hosts = zipf(WARM_UP + REQUESTS)
        module = os.environ["BENCH_MODULE"]
        with Ends() as ends:
            upstream = f"server 127.0.0.1:{ends.port}; {keepalive};"
            with Nginx(upstream, module=module, server=SERVER, workers=workers) as nginx:
                # Until nginx listens.
                Client(nginx.port, seconds=10).socket.close()
                ends.nginx_port = nginx.port
                ends.ask(hosts[:WARM_UP])
                ends.forget()
                ends.ask(hosts[WARM_UP:])
                self.left, left_of_one = ends.rest()
        if len(ends.workers) != workers:
            raise RuntimeError(f"{len(ends.workers)} of {workers} workers have served")
        if ends.requests != REQUESTS:
            raise RuntimeError(f"{REQUESTS} requests became {ends.requests}")
        self.reused = ends.reused / REQUESTS
        self.most = ends.most
        self.most_of_one = max(ends.most_of_one, left_of_one)

    def cells(self):
        return [
            f"{100 * self.reused:.1f} %",
            thousands(self.most),
            thousands(self.most_of_one),
            thousands(self.left),
        ]

    def within_limits(self):
        return max(self.most, self.left) <= MOST and self.most_of_one <= MOST_OF_ONE


def table():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rows, shared = [], {}
    for workers in WORKERS:
        say(f"reuse with {workers} workers")
        alone = Figures(KEEPALIVE, workers)
        shared[workers] = Figures(SHARED, workers)
        rows.append([str(workers), *alone.cells(), *shared[workers].cells()])

    columns = ["reused", "idle", "of one host", "left"]
    notes = NOTES.format(
        machine=machine(),
        keepalive=KEEPALIVE,
        at_once=AT_ONCE,
        hosts=HOSTS,
        requests=thousands(REQUESTS),
        warm_up=thousands(WARM_UP),
        sample=round(1000 * SAMPLE),
    )
    markdown(
        "Workers: reuse and idle connections",
        ["workers", *columns, f"`shared`: {columns[0]}", *columns[1:]],
        rows,
        notes,
    )
    judge(shared)


def judge(shared):
    """Fails if what all workers have in common is not as good as with one."""
    fewest, most = WORKERS[0], WORKERS[-1]
    ratio = shared[most].reused / shared[fewest].reused
    print(f"`shared`, reuse with {most} workers to that with {fewest}: {ratio:.3f}\n", flush=True)
    above = [str(workers) for workers, each in shared.items() if not each.within_limits()]
    if above:
        sys.exit(f"bench: above the limits, shared by so many workers: {' '.join(above)}")
    if ratio < LEAST_RATIO:
        sys.exit(f"bench: reuse with shared is less than {LEAST_RATIO} of that with {fewest} worker")
