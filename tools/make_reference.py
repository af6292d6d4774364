#!/usr/bin/env python3
"""Writes the tables of cards, flags and metrics in docs/operations.md from what the programs say.

  tools/make_reference.py --bin build/bin --metrics FILE [--check]

FILE is a page of /metrics of a server with draft and target. A test runs it with --check.
"""

import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "operations.md"
PROGRAMS = [["tandem", "serve"], ["tandem", "generate"], ["tandem", "chat"],
            ["tandem", "bench", "serve"], ["tandem", "eval", "perplexity"], ["tandem", "inspect"],
            ["tandem", "tokenize"], ["tandem", "doctor"], ["tandem", "health"],
            ["tandem-gateway"], ["tandem-target"], ["tandem-draft"]]
# These take what another takes, and more.
MORE_THAN = {"tandem chat": "tandem generate", "tandem bench serve": "tandem generate"}
# A flag as CLI11 prints it: its names, its type with choices or range and default, its text.
# A positional has a name without dashes.
HELP_LINE = re.compile(r"^  (-[^ {]+|\w+(?= TEXT))(?:\{false\})?"
                       r"((?: (?:TEXT|INT|UINT|FLOAT)(?:\S* in \[[^\]]*\]\S*|\S*))?"
                       r"(?: \.\.\.)?(?: REQUIRED)?)\s*(.*)$")


def flags_of(folder, program):
    """[(flag with its value, what it does)] of --help."""
    text = subprocess.run([str(folder / program[0]), *program[1:], "--help"],
                          capture_output=True, text=True, check=True).stdout
    flags = []
    for line in text.splitlines():
        match = HELP_LINE.match(line)
        if match:
            value = re.sub(r"(INT|FLOAT):\1 in", r"\1 in", match.group(2))
            flags.append([match.group(1) + value, match.group(3).strip()])
        elif flags and line.startswith(" " * 10) and line.strip():
            flags[-1][1] = (flags[-1][1] + " " + line.strip()).strip()
    return [flag for flag in flags if not flag[0].startswith("-h")]


def cell(text):
    return text.replace("|", "\\|")


def flags_table(folder):
    lines = []
    seen = {}
    for program in PROGRAMS:
        name = " ".join(program)
        seen[name] = flags_of(folder, program)
        base = MORE_THAN.get(name)
        own = [flag for flag in seen[name] if base is None or flag not in seen[base]]
        lines += [f"**`{name}`**" + (f": as `{base}`, without its prompt, and" if base else ""),
                  "", "| flag | what it does |", "|---|---|"]
        lines += [f"| `{cell(flag)}` | {cell(what)} |" for flag, what in own]
        lines.append("")
    return "\n".join(lines).rstrip()


def metrics_table(page):
    """Of the text format: name, type, labels, help."""
    rows, labels = {}, {}
    for line in page.splitlines():
        if line.startswith("# HELP "):
            _, _, name, text = line.split(" ", 3)
            rows[name] = ["", text]
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ", 3)
            rows[name][0] = kind
        elif line:
            name = re.sub(r"_(bucket|sum|count)$", "", re.split(r"[{ ]", line)[0])
            name = name if name in rows else re.split(r"[{ ]", line)[0]
            found = re.findall(r'[{,](\w+)="', line)
            labels.setdefault(name, set()).update(set(found) - {"le", "model"})
    lines = ["| metric | type | labels | what it tells |", "|---|---|---|---|"]
    for name in sorted(rows):
        kind, text = rows[name]
        lines.append(f"| `{name}` | {kind} | {', '.join(sorted(labels.get(name, [])))} | "
                     f"{cell(text)} |")
    return "\n".join(lines)


def put(text, section, body):
    begin, end = f"<!-- {section}: made by tools/make_reference.py -->", f"<!-- end {section} -->"
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    return f"{before}{begin}\n\n{body}\n\n{end}{after}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "build" / "bin")
    parser.add_argument("--metrics", type=pathlib.Path, required=True)
    parser.add_argument("--check", action="store_true", help="only say whether it is as it should")
    arguments = parser.parse_args()
    old = PAGE.read_text(encoding="utf-8")
    fit = subprocess.run([str(arguments.bin / "tandem"), "doctor", "--fit"], capture_output=True,
                         text=True, check=True).stdout
    new = put(old, "fit", fit.rstrip())
    new = put(new, "flags", flags_table(arguments.bin))
    new = put(new, "metrics", metrics_table(arguments.metrics.read_text(encoding="utf-8")))
    if arguments.check:
        if new != old:
            sys.exit("docs/operations.md is not what the programs say: run "
                     "tools/make_reference.py")
        return
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
