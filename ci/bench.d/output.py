"""What the tables have in common: messages, markdown, and figures kept for the charts."""

import json
import os
import subprocess
import sys


def say(text):
    """A line on standard error, to show that there is progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def thousands(number, digits=0):
    return f"{number:,.{digits}f}"


def markdown(title, columns, rows, notes):
    """Prints a table; the first column is text, the others are numbers."""
    print(f"### {title}\n")
    print(notes + "\n")
    print("| " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * (len(columns) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def machine():
    """The versions and the processor."""
    version = subprocess.run(
        [os.environ["BENCH_NGINX"], "-v"], capture_output=True, text=True, check=True
    ).stderr.strip()
    with open("/proc/cpuinfo") as file:
        names = {line.split(":")[1].strip() for line in file if line.startswith("model name")}
    cores = f"{os.cpu_count()} cores"
    return ", ".join([version.removeprefix("nginx version: "), *sorted(names), cores])


def keep(name, figures):
    """Keeps figures for the charts."""
    with open(f"target/bench/{name}.json", "w") as file:
        json.dump(figures, file, indent=1)


def kept(name):
    try:
        with open(f"target/bench/{name}.json") as file:
            return json.load(file)
    except FileNotFoundError:
        sys.exit(f"bench: there are no figures yet: run ci/bench {name}")
