"""Requests per second, over Apache with mpm-itk and over a fast backend."""

import os
import re
import statistics
import subprocess

from callgrind import Client, Nginx
from output import keep, machine, markdown, say, thousands

RUNS = 7
SECONDS = 3

VARIANTS = [
    ("built-in `keepalive 64`", "keepalive 64;", False),
    ("`keepalive 64`", "keepalive 64;", True),
    ("`slice_key=$arg_k`, 8 keys", "keepalive 64 slice_key=$arg_k;", True),
]

NOTES = """{machine}. nginx with `return 200` behind nginx, one worker each, and wrk with 32
connections on the same machine. {runs} runs of {seconds} seconds of each, in turns; the ratio is the
median of those to the built-in's in the same turn, and the range of them."""

SCRIPT = """
local n = 0
request = function()
    n = n + 1
    return wrk.format("GET", "/?k=" .. n % 8)
end
"""


def table():
    apache()
    fast_backend()


def apache():
    say("running ci/demo")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("NGINX_")
    }
    demo = subprocess.run(
        ["ci/demo", "--once"], check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout
    lines = demo.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    versions = next(line for line in lines if "Apache" in line and not line.startswith("|"))
    keep("apache", [[cell.strip() for cell in row.split("|")[1:3]] for row in rows[2:]])
    print(f"### Throughput over Apache with mpm-itk\n\n{versions}.\n")
    print("\n".join(rows) + "\n", flush=True)


def fast_backend():
    rates = {name: [] for name, *_ in VARIANTS}
    module = os.environ["BENCH_MODULE"]
    with Nginx("server 127.0.0.1;", server='location = /fast { return 200 "ok"; }') as backend:
        server = f"server 127.0.0.1:{backend.port};"
        for run in range(RUNS):
            say(f"throughput over a fast backend, {run + 1} of {RUNS}")
            for name, keepalive, sliced in VARIANTS:
                options = {"module": module if sliced else None, "uri": "/fast"}
                with Nginx(server + keepalive, **options) as nginx:
                    rates[name].append(wrk(nginx))

    builtin = rates[VARIANTS[0][0]]
    rows, medians = [], []
    for name, each in rates.items():
        ratios = sorted(rate / base for rate, base in zip(each, builtin))
        median = statistics.median(each)
        medians.append((name, median))
        rows.append(
            [
                name,
                thousands(median),
                f"{statistics.median(ratios):.3f}",
                f"{ratios[0]:.3f} to {ratios[-1]:.3f}",
            ]
        )
    keep("throughput", medians)
    columns = ["", "requests/s", "of the built-in's", "range"]
    notes = NOTES.format(machine=machine(), runs=RUNS, seconds=SECONDS)
    markdown("Throughput over a fast backend", columns, rows, notes)


def wrk(nginx):
    script = f"{nginx.directory}/keys.lua"
    with open(script, "w") as file:
        file.write(SCRIPT)
    Client(nginx.port).get()
    command = ["wrk", "-t1", "-c32", f"-d{SECONDS}", "-s", script, f"http://127.0.0.1:{nginx.port}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Socket errors" in output or "Non-2xx" in output:
        raise RuntimeError(output)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
