"""What ci/docs needs of Markdown.

markdown.py blocks LANGUAGE FOLDER FILE...
    writes each block of code in this language into the folder, as a file named
    after its file and line

markdown.py links FILE...
    prints the links that lead nowhere, to a file or to a heading; fails if
    there is one, or if there are none at all
"""

import pathlib
import re
import sys

FENCE = re.compile(r"\s*```(\w*)")
HEADING = re.compile(r"#+ +(.*)")
LINK = re.compile(r"\]\(([^()\s]*)\)")


def split(path):
    """The lines of prose, and the blocks of code: (line, language, lines)."""
    prose, blocks, block = [], [], None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if fence and block is None:
            block = (number, fence[1], [])
            blocks.append(block)
        elif fence:
            block = None
        elif block is not None:
            block[2].append(line)
        else:
            prose.append((number, line))
    if block is not None:
        sys.exit(f"{path}:{block[0]}: a block without an end")
    return prose, blocks


def write_blocks(language, folder, paths):
    for path in paths:
        for number, found, lines in split(path)[1]:
            if found == language:
                name = f"{str(path).replace('/', '%')}:{number:04}"
                (folder / name).write_text("\n".join(lines) + "\n")


def anchors(path):
    """The names by which the headings of a file can be linked to."""
    seen, names = {}, set()
    for _, line in split(path)[0]:
        if heading := HEADING.fullmatch(line):
            text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[1]).strip().lower()
            name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            count = seen[name] = seen.get(name, -1) + 1
            names.add(f"{name}-{count}" if count else name)
    return names


def broken(path, link):
    """What is wrong with a link of a file."""
    target, _, anchor = link.partition("#")
    if re.match(r"[a-z]+:", link):
        return None
    file = path.parent / target if target else path
    if not file.exists():
        return "no such file"
    if anchor and anchor not in anchors(file):
        return "no such heading"
    return None


def check_links(paths):
    count = failed = 0
    for path in paths:
        for number, line in split(path)[0]:
            for link in LINK.findall(re.sub(r"`[^`]*`", "", line)):
                count += 1
                if why := broken(path, link):
                    failed += 1
                    print(f"{path}:{number}: {link}: {why}")
    sys.exit(1 if failed or not count else 0)


match sys.argv[1:]:
    case ["blocks", language, folder, *files] if files:
        write_blocks(language, pathlib.Path(folder), [pathlib.Path(file) for file in files])
    case ["links", *files] if files:
        check_links([pathlib.Path(file) for file in files])
    case _:
        sys.exit(__doc__)
