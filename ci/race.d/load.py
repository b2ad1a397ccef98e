"""The load generator of ci/race: load.py POSTS AGES VARIANT=PORT...

In front of a server is an nginx of each variant, on the variant's port. Independent clients send POSTs;
each waits after an answer for about as long as the server lets a connection be idle: AGES is a file of
ages in milliseconds, the least first, at which it closed connections. So some POSTs are sent while it
does so.

Prints for each variant: its name, POSTs, answers 502, other answers than 200 and 502, answers on a
connection that was reused, and how many of the POSTs were sent late.
"""

import asyncio
import collections
import random
import statistics
import sys

from client import Addresses, Client, until

CLIENTS = 50
# Seconds around one of the ages, for half of the POSTs, and around the median, for the others.
NEAR, FAR = 0.005, 0.2
# A POST that is sent so much later than it should be is late.
LATE = 0.005
# Seconds.
REPORT = 15.0


class Variant:
    """An nginx with its clients."""

    def __init__(self, name, port, goal, ages):
        self.name, self.port, self.goal = name, port, goal
        self.ages = ages
        self.median = statistics.median(ages)
        self.addresses = Addresses()
        self.peers = set()
        self.started = self.reused = self.late = 0
        self.statuses = collections.Counter()

    def wait(self, rng):
        if rng.random() < 0.5:
            return rng.choice(self.ages) + rng.uniform(-NEAR, NEAR)
        return rng.uniform(self.median - FAR, self.median + FAR)

    async def client(self, number):
        rng = random.Random(f"{self.name} {number}")
        client = Client(self.port, f"X-Client: {number}\r\n")
        await asyncio.sleep(rng.uniform(0, self.median))
        answer, _ = await self.post(client)
        while self.started < self.goal:
            self.started += 1
            planned = answer.answered + self.wait(rng)
            await until(planned)
            answer, reused = await self.post(client)
            self.statuses[answer.status] += 1
            self.late += answer.sent > planned + LATE
            self.reused += reused

    async def post(self, client):
        """Sends a POST; returns the answer, and whether it came on a connection that was reused."""
        answer = await client.request(headers=f"X-Local: {self.addresses.next()}\r\n")
        reused = answer.status == "200" and answer.peer in self.peers
        self.peers.add(answer.peer)
        return answer, reused

    def failed(self):
        return self.statuses.total() - self.statuses["200"]

    def row(self):
        posts, failed = self.statuses.total(), self.statuses["502"]
        figures = (posts, failed, self.failed() - failed, self.reused, self.late)
        return "\t".join(map(str, (self.name, *figures)))


async def report(variants):
    while True:
        await asyncio.sleep(REPORT)
        posts = ", ".join(f"{v.name} {v.statuses.total()} ({v.failed()})" for v in variants)
        print(f"POSTs, and how many failed: {posts}", file=sys.stderr, flush=True)


async def main(posts, ages_file, *ports):
    with open(ages_file, encoding="ascii") as file:
        ages = [int(line) / 1000 for line in file]
    variants = [
        Variant(name, int(port), int(posts), ages)
        for name, port in (argument.split("=") for argument in ports)
    ]
    progress = asyncio.ensure_future(report(variants))
    await asyncio.gather(*(v.client(number) for v in variants for number in range(CLIENTS)))
    progress.cancel()
    for variant in variants:
        print(variant.row())


asyncio.run(main(*sys.argv[1:]))
