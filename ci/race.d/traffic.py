"""The load of ci/race --change: traffic.py PORT LOG, until it is ended

Independent clients send POSTs and GETs to nginx, most of them after 0.1 to 3 seconds, some after up to
15, so that the server closes connections. Writes a line for each request to LOG: when it was sent, the
status of the answer, and 1 if it came on a connection that was reused, otherwise 0.
"""

import asyncio
import random
import sys
import time

from client import Addresses, Client

# How many clients, and the least and the greatest time between two requests of each, in seconds.
CLIENTS = [(40, 0.1, 3.0), (10, 1.0, 15.0)]


async def client(port, number, least, greatest, addresses, peers, log):
    rng = random.Random(number)
    connection = Client(port, f"X-Client: {number}\r\n")
    while True:
        await asyncio.sleep(rng.uniform(least, greatest))
        sent = time.time()
        method = rng.choice(("GET", "POST"))
        answer = await connection.request(method, f"X-Local: {addresses.next()}\r\n")
        reused = answer.status == "200" and answer.peer in peers
        peers.add(answer.peer)
        print(f"{sent:.3f} {answer.status} {reused:d}", file=log, flush=True)


async def main(port, path):
    addresses, peers = Addresses(), set()
    ranges = [(least, greatest) for count, least, greatest in CLIENTS for _ in range(count)]
    with open(path, "w", encoding="ascii") as log:
        await asyncio.gather(
            *(client(int(port), n, *ends, addresses, peers, log) for n, ends in enumerate(ranges))
        )


asyncio.run(main(*sys.argv[1:]))
