"""Checks what debian/copyright says about the crates in the source package.

copyright.py COPYRIGHT VENDOR
    each crate with code in this folder, as vendor_crates leaves them, has to be
    named, under a license that its manifest allows and whose text is there
"""

import fnmatch
import json
import pathlib
import re
import sys
import tomllib

PLACE = "crates/vendor/"
# The crates without code.
REST = f"{PLACE}*"


def stanzas(text):
    """The paragraphs: a dictionary of fields each."""
    for paragraph in re.split(r"\n\n+", text):
        fields = re.findall(r"^([\w-]+): *(.*(?:\n[ \t].*)*)", paragraph, re.M)
        yield dict(fields)


def has_code(crate):
    """Of the others, there is no more than what cargo reads."""
    checksums = json.loads((crate / ".cargo-checksum.json").read_text())
    return bool(checksums["files"])


def allows(expression, licenses):
    """Whether a manifest's license, "MIT OR Apache-2.0", is met by all of these."""

    def value(match):
        operator = match[0].lower()
        return operator if operator in ("and", "or") else str(match[0] in licenses)

    # Once, a slash was written in place of OR.
    expression = expression.replace("/", " OR ")
    return eval(re.sub(r"[\w.+-]+(?: WITH [\w.+-]+)?", value, expression))


def main(copyright_file, vendor):
    named, texts, faults = {}, set(), []
    for stanza in stanzas(pathlib.Path(copyright_file).read_text()):
        name, _, text = stanza.get("License", "").partition("\n")
        if text:
            texts.add(name)
        for pattern in stanza.get("Files", "").split():
            if pattern.startswith(PLACE) and pattern != REST:
                named[pattern] = name.split(" and ")

    crates = [crate for crate in sorted(pathlib.Path(vendor).iterdir()) if has_code(crate)]
    unused = set(named)
    for crate in crates:
        # The last one that matches counts.
        patterns = [pattern for pattern in named
                    if fnmatch.fnmatchcase(f"{PLACE}{crate.name}/Cargo.toml", pattern)]
        unused.difference_update(patterns)
        expression = tomllib.loads((crate / "Cargo.toml").read_text())["package"]["license"]
        licenses = named[patterns[-1]] if patterns else []
        if not licenses:
            faults.append(f"{crate.name} is not named: {expression}")
        elif not allows(expression, licenses):
            faults.append(f"{crate.name} is {expression}, not {' and '.join(licenses)}")
    for licenses in named.values():
        faults.extend(f"no text of {name}" for name in licenses if name not in texts)
    faults.extend(f"no such crate: {pattern}" for pattern in sorted(unused)
                  if pattern.count("/") == PLACE.count("/"))

    for fault in faults:
        print(f"{copyright_file}: {fault}")
    if not crates or faults:
        sys.exit(1)


main(*sys.argv[1:])
