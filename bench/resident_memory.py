#!/usr/bin/env python3
"""Measures what Tandem keeps in memory beside the model files and the page pool.

Starts `tandem serve`, streams answers, and reads what is resident in the three processes.
Shared memory (the pool and the rings) is counted apart; weights are copied from the files
when they are loaded, so what is left over the files is what Tandem itself needs.
Writes markdown to bench/results/.

  bench/resident_memory.py --target T.gguf --draft D.gguf [--requests 4]
"""

import argparse
import datetime
import pathlib
import platform
import re
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = ROOT / "build" / "bin"
MIB = 1 << 20
PROCESSES = ("target", "draft", "gateway")
MUST_MIB, GOAL_MIB = 120, 60


def start(arguments):
    """(process, address) of a server that is ready."""
    command = [str(BIN / "tandem"), "serve", "--target", arguments.target, "--draft",
               arguments.draft, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               text=True)
    for line in process.stderr:
        if match := re.match(r"ready  grpc (\S+) · metrics (\S+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, match.group(1)
    sys.exit(f"the server ended with {process.wait()}")


def generate(address, number):
    """One answer of a prompt of some 500 tokens."""
    prompt = f"Chapter {number}. " + "The keeper of the lighthouse wrote down every ship. " * 45
    subprocess.run([str(BIN / "tandem"), "generate", "--endpoint", address, "--prompt", prompt,
                    "--max-tokens", "200"], check=True, capture_output=True)


def resident(parent, name):
    """Bytes of one process: anonymous, of files, shared memory; and those of each file."""
    pid = subprocess.run(["pgrep", "-P", str(parent), "-f", f"tandem-{name}"], check=True,
                         capture_output=True, text=True).stdout.split()[0]
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    smaps = pathlib.Path(f"/proc/{pid}/smaps").read_text()

    def kib(key):
        return int(re.search(rf"^{key}:\s+(\d+) kB", status, re.M).group(1)) * 1024

    files = {}
    # A mapping's range, rights, offset, device, inode and path; its lines of numbers.
    for offset, path, numbers in re.findall(
            r"^[0-9a-f]+-[0-9a-f]+ r\S+ (\S+) \S+ \d+ +(/\S+)\n((?:[A-Z].*\n)+)", smaps, re.M):
        clean = sum(int(size) for size in re.findall(r"^\w+_Clean: +(\d+) kB", numbers, re.M))
        files[path, offset] = clean * 1024
    return {"anonymous": kib("RssAnon"), "file": kib("RssFile"), "shared": kib("RssShmem"),
            "files": files}


def report(rows, files, requests):
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.strip()
    both = sum(files.values())
    rss = sum(row["anonymous"] + row["file"] for row in rows.values()) - both
    once = {}
    for row in rows.values():
        for place, size in row["files"].items():
            once[place] = max(once.get(place, 0), size)
    least = sum(row["anonymous"] for row in rows.values()) + sum(once.values()) - both
    lines = ["# Resident memory", "",
             f"{datetime.date.today()}, commit {commit}, {platform.machine()}, after {requests} "
             "answers at once of 200 tokens to prompts of 500.", "",
             "| MiB | anonymous | files (programs, libraries) | shared memory touched | model file |",
             "|---|---|---|---|---|"]
    for name, row in rows.items():
        lines.append(f"| {name} | {row['anonymous'] / MIB:.1f} | {row['file'] / MIB:.1f} | "
                     f"{row['shared'] / MIB:.1f} | {files.get(name, 0) / MIB:.1f} |")
    lines += ["",
              f"Over the model files and the pool: {rss / MIB:.1f} MiB with a shared "
              f"library counted in each process, **{least / MIB:.1f} MiB** with it counted once, as it is in memory. "
              f"Must: {MUST_MIB}, goal: {GOAL_MIB}."]
    return "\n".join(lines) + "\n"


def main():
    models = ROOT / "build" / "models"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default=str(models / "smollm2-135m-instruct.q4_1.gguf"))
    parser.add_argument("--draft", default=str(models / "smollm2-135m-instruct.first6.q4_1.gguf"))
    parser.add_argument("--requests", type=int, default=4, help="at once")
    parser.add_argument("--out", default=str(ROOT / "bench" / "results" / "resident_memory.md"))
    arguments = parser.parse_args()
    process, address = start(arguments)
    try:
        clients = [threading.Thread(target=generate, args=(address, number))
                   for number in range(arguments.requests)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        rows = {name: resident(process.pid, name) for name in PROCESSES}
    finally:
        process.terminate()
        process.wait()
    files = {"target": pathlib.Path(arguments.target).stat().st_size,
             "draft": pathlib.Path(arguments.draft).stat().st_size}
    text = report(rows, files, arguments.requests)
    pathlib.Path(arguments.out).write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
