"""At which age a server closes idle connections, for ci/race: ages.py PORT

Opens connections in the course of a second, sends one POST on each, and waits until the server closes
them, while other connections carry a light load. Prints the ages in milliseconds, the least first;
none if a connection is still open after some seconds.
"""

import asyncio
import random
import sys

from client import Client, until

CONNECTIONS = 50
LIMIT = 8.0
# Seconds between two requests of each of the others, on average.
LOAD = [0.2] * 5

rng = random.Random(1)


async def age(port, start):
    await until(start)
    client = Client(port)
    answer = await client.request()
    if answer.status != "200":
        sys.exit(f"answered {answer.status}")
    return await client.closed - answer.answered


async def others(port, mean):
    client = Client(port)
    while True:
        await client.request("GET")
        await asyncio.sleep(rng.expovariate(1 / mean))


async def main(port):
    start = asyncio.get_running_loop().time()
    load = [asyncio.ensure_future(others(port, mean)) for mean in LOAD]
    ages = [asyncio.ensure_future(age(port, start + rng.random())) for _ in range(CONNECTIONS)]
    closed, still_open = await asyncio.wait(ages, timeout=LIMIT)
    for task in [*load, *still_open]:
        task.cancel()
    await asyncio.wait([*load, *still_open])
    if not still_open:
        for milliseconds in sorted(round(1000 * task.result()) for task in closed):
            print(milliseconds)


asyncio.run(main(int(sys.argv[1])))
