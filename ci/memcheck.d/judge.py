"""Judges the logs of valgrind: judge.py LOGS, or judge.py --growth LOGS LOGS.

Every error that valgrind was not told to suppress is a finding, and so is all
memory that is lost. With --growth, the second folder is of a run that did twice as
much: what has more blocks there is a finding, also if it is still reachable. Prints
the findings; the last line is the number of processes and that of findings.
"""

import collections
import pathlib
import re
import sys

# What the second run does twice as often is done 5 times in the first, or more
# often; and one block may be there or not as it happens.
GROWTH = 4

PREFIX = re.compile(r'^==\d+== ?', re.M)
FRAME = re.compile(r'^ +(?:at|by) 0x[0-9A-F]+: (.*)$', re.M)
BLOCKS = re.compile(r'bytes in ([\d,]+) blocks are ([a-z ]+?) in loss record')
ORDER = ('error', 'definitely lost', 'possibly lost', 'indirectly lost')
MODULE = 'ngx_http_upstream_sliced_keepalive_module'


class Report:
    """A paragraph of a log with a stack in it."""

    def __init__(self, text):
        self.text = text
        frames = FRAME.findall(text)
        # Of the module, which is all that is Rust.
        self.module = any('.rs:' in frame or MODULE in frame for frame in frames)
        leak = BLOCKS.search(text)
        self.kind = leak.group(2) if leak else 'error'
        self.blocks = int(leak.group(1).replace(',', '')) if leak else 1
        self.place = tuple(frames) if leak else (text.split('\n')[0], *frames)


def reports(text):
    return [Report(part) for part in re.split(r'\n\s*\n', text) if FRAME.search(part)]


def read(folder):
    """What each process logged, without valgrind's prefix."""
    paths = sorted(pathlib.Path(folder).iterdir(), key=lambda path: int(path.name))
    return [PREFIX.sub('', path.read_text(errors='replace')) for path in paths]


def show(title, report):
    whose = 'in the module' if report.module else 'outside of the module'
    print(f'{title}, {whose}:\n{report.text.strip()}\n')


def judge(logs):
    found = collections.Counter()
    first = {}
    for log in logs:
        for report in reports(log):
            if report.kind != 'still reachable':
                found[report.place] += 1
                first.setdefault(report.place, report)
    # What only something else leads to comes last.
    for place, report in sorted(first.items(), key=lambda item: ORDER.index(item[1].kind)):
        show(f'{report.kind}, in {found[place]} processes', report)
    return len(found)


def most(logs):
    """The most blocks from a place that any process had at its end."""
    blocks = {}
    for log in logs:
        here = collections.Counter()
        one = {}
        for report in reports(log):
            if report.kind != 'error':
                here[report.place] += report.blocks
                one[report.place] = report
        for place, count in here.items():
            if count > blocks.get(place, (0, None))[0]:
                blocks[place] = (count, one[place])
    return blocks


def growth(once, twice):
    before, after = most(once), most(twice)
    findings = 0
    for place, (count, report) in after.items():
        earlier = before.get(place, (0, None))[0]
        if count - earlier >= GROWTH:
            show(f'grows from {earlier} to {count} blocks', report)
            findings += 1
    return findings


def main(args):
    if args[0] == '--growth':
        logs = [read(folder) for folder in args[1:]]
        findings = growth(*logs)
        processes = sum(map(len, logs))
    else:
        logs = read(args[0])
        findings = judge(logs)
        processes = len(logs)
    print(processes, findings)
    return 1 if findings else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
