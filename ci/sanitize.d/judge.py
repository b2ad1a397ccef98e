"""What sanitizers and the module have said: judge.py REPORTS SCRIPT OUTPUT.

That is the folder with reports of processes, the one where a script has left its own,
with nginx's logs, and what the script has printed. Prints each finding once, however
many processes have it; the last line is the number of findings.
"""

import pathlib
import re
import sys

ERROR = re.compile(r'^==\d+==ERROR: (\w+: [\w-]+)', re.M)
FRAME = re.compile(r'^ +#\d+ 0x[0-9a-f]+ (?:in )?(.*)$', re.M)
# In nginx's log: with its stack; and with the message and what it says of the place.
UNDEFINED = re.compile(r'^\S+?:\d+:\d+: (runtime error: .*)\n((?: +#\d+ .*\n)*)', re.M)
PANIC = re.compile(r'^thread .* panicked at (.*)\n(.*\n?)', re.M)


def main(reports, script, output):
    found, panics = {}, {}
    logs = sorted(pathlib.Path(script).rglob('error.log')) + [pathlib.Path(output)]
    for text in (log.read_text(errors='replace') for log in logs):
        for match in UNDEFINED.finditer(text):
            # Numbers and addresses may be others.
            place = match[0].split(' ', 1)[0]
            found.setdefault((place, re.sub(r'0x\w+|-?\d+', '', match[1])), match[0])
        for match in PANIC.finditer(text):
            panics.setdefault(match[1], match[0])
    for path in sorted(pathlib.Path(reports).iterdir()):
        text = path.read_text(errors='replace')
        error = ERROR.search(text)
        place = (error[1], *FRAME.findall(text)[:12]) if error else (text,)
        found.setdefault(place, f'{path.name}:\n{text}')
    # One that panics has aborted, with the stack as a report.
    aborts = sum(place[0] == 'AddressSanitizer: ABRT' for place in found)
    for text in (*panics.values(), *found.values()):
        print(text.strip() + '\n')
    print(len(found) + max(0, len(panics) - aborts))


if __name__ == '__main__':
    main(*sys.argv[1:])
