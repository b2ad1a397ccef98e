"""The figures of ci/race --change: phases.py FOLDER

Reads what is in FOLDER: phases, a line for each, with the server's idle timeout in seconds, when the
server was ended, when it listened again, and when the phase ended; requests, of traffic.py; samples, with
times and the timeout that nginx had learned, if any; and error.log, of nginx. Prints them for each phase.
The exit status is 1 if they are not as they must be.
"""

import collections
import re
import sys
import time

# Seconds of a part, for which there is a share of requests on a reused connection; of the end of a
# phase; in which the share of before must be back.
PART, END, BACK = 10, 30, 60
# A share that is less by this is another one. A timeout that differs by this part is another one.
SHARE, CHANGE = 0.05, 1 / 8
# Seconds before and after a restart in which requests may fail: those under way, and those while nothing
# listens.
BEFORE, AFTER = 0.5, 1.0
RACES = 3

Phase = collections.namedtuple("Phase", "timeout down up end")
Request = collections.namedtuple("Request", "time status reused")


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        yield from file


def errors(path):
    """When nginx logged one, in whole seconds."""
    for line in read(path):
        found = re.match(r"(\S+ \S+) \[(error|crit|alert|emerg)\]", line)
        if found:
            yield time.mktime(time.strptime(found[1], "%Y/%m/%d %H:%M:%S"))


def share(requests, start, end):
    reused = [r.reused for r in requests if start <= r.time < end]
    return sum(reused) / len(reused) if reused else 0.0


def same(learned, other):
    return learned is not None and other is not None and abs(learned - other) <= CHANGE * other


class Figures:
    """What happened in a phase."""

    def __init__(self, phase, requests, logged, samples):
        self.phase = phase
        restart = (phase.down - BEFORE, phase.up + AFTER)
        mine = [r for r in requests if phase.down - BEFORE <= r.time < phase.end - BEFORE]
        failed = [r.time for r in mine if r.status != "200"]
        self.requests = len(mine)
        self.at_restart = sum(restart[0] <= t <= restart[1] for t in failed)
        self.failed = len(failed) - self.at_restart
        # nginx's times are cut to seconds.
        self.races = sum(restart[1] < t < phase.end - 1 for t in logged)
        self.shares = []
        start = phase.up
        while start + PART <= phase.end:
            self.shares.append(share(mine, start, start + PART))
            start += PART
        self.share_at_end = share(mine, phase.end - END, phase.end)
        values = [(t, value) for t, value in samples if phase.up <= t < phase.end]
        self.learned = values[-1][1] if values else None
        # Since when it was right.
        right = None
        for t, value in values:
            if not same(value, phase.timeout):
                right = None
            elif right is None:
                right = t
        self.after = right - phase.up if right else None

    def print(self):
        learned = f"{self.learned:.3f}" if self.learned else "no"
        after = f"{self.after:.0f} s" if self.after is not None else "-"
        print(
            f"| {self.phase.timeout:7.0f} s | {self.requests:8} | {self.at_restart:14} | {self.failed:12} "
            f"| {self.races:13} | {learned:>7} | {after:>6} |"
        )


def judge(figures):
    """Yields what is not as it must be."""
    for f in figures:
        if f.races > RACES:
            yield f"{f.races} errors after the restart with {f.phase.timeout:.0f} s"
    for now, before in ((2, 0), (3, 2)):
        needed = figures[before].share_at_end - SHARE
        if max(figures[now].shares[: BACK // PART], default=0) < needed:
            yield f"after restart {now}, reuse is not back to {100 * needed:.0f} % within {BACK} s"
    if not same(figures[3].learned, figures[2].learned):
        yield "the restart without a change has changed what was learned"


def main(folder):
    phases = [Phase(*map(float, line.split())) for line in read(f"{folder}/phases")]
    requests = []
    for line in read(f"{folder}/requests"):
        sent, status, reused = line.split()
        requests.append(Request(float(sent), status, int(reused)))
    samples = [
        (float(t), float(value[0]) if value else None)
        for t, *value in (line.split() for line in read(f"{folder}/samples"))
    ]
    logged = list(errors(f"{folder}/error.log"))
    figures = [Figures(phase, requests, logged, samples) for phase in phases]
    print("| Timeout   | Requests | 502 at restart | 502 later    | errors logged | learned | after  |")
    print("|----------:|---------:|---------------:|-------------:|--------------:|--------:|-------:|")
    for f in figures:
        f.print()
    print(f"\nRequests on a reused connection, in percent, for each {PART} seconds:")
    for f in figures:
        print(f"{f.phase.timeout:2.0f} s:", *(round(100 * value) for value in f.shares))
    wrong = list(judge(figures))
    for text in wrong:
        print(text, file=sys.stderr)
    sys.exit(1 if wrong else 0)


main(sys.argv[1])
