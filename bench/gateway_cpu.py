#!/usr/bin/env python3
"""CPU time of the gateway a step at 32 streams, by thread, without a GPU.

The target is build/test_bin/tandem-fake-target, whose passes take --pass-ms and no CPU. Name two
gateways to compare them in turn: a machine's noise is larger than most changes.

  bench/gateway_cpu.py --model models/smollm2-135m-instruct.tiny.q4_1.gguf GATEWAY [GATEWAY...]
"""

import argparse
import collections
import os
import pathlib
import shutil
import statistics
import tempfile

import serving


def folder_of(gateway):
    """The programs that `tandem serve` looks for beside itself."""
    folder = pathlib.Path(tempfile.mkdtemp())
    build = serving.ROOT / "build"
    for name, source in (("tandem", build / "bin" / "tandem"), ("tandem-gateway", gateway),
                         ("tandem-target", build / "test_bin" / "tandem-fake-target")):
        shutil.copy(source, folder / name)
    return folder


def microseconds_by_thread(server):
    """{(thread's name, id): CPU microseconds so far}."""
    return {((task / "comm").read_text().strip(), int(task.name)):
            int((task / "schedstat").read_text().split()[0]) / 1e3
            for task in (server.gateway_folder() / "task").iterdir()}


def measure(gateway, arguments):
    """Microseconds a step: {thread: value}; threads of one name are numbered."""
    folder = folder_of(gateway)
    serving.BIN = folder
    try:
        with serving.Server(arguments.model, None, "--max-running", "32", "--ctx", "4096",
                            "--kv-tokens", "16384", *arguments.serve_flag) as server:
            options = {"concurrency": 32, "prompt_tokens": 16, "temperature": 0,
                       "speculation": arguments.speculation, "warmup": 0}
            serving.load(server, requests=32, output_tokens=8, **options)
            before, steps = microseconds_by_thread(server), server.target_steps()
            serving.load(server, requests=arguments.requests,
                         output_tokens=arguments.output_tokens, **options)
            after, steps = microseconds_by_thread(server), server.target_steps() - steps
    finally:
        shutil.rmtree(folder)
    spent, names = collections.Counter(), collections.Counter()
    for name, thread in sorted(after, key=lambda key: key[1]):
        key = f"{name} {names[name]}"
        names[name] += 1
        spent[key] = (after[name, thread] - before.get((name, thread), 0.0)) / steps
    return spent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gateways", nargs="+")
    parser.add_argument("--model", required=True, help="a GGUF, of which only the vocabulary counts")
    parser.add_argument("--pass-ms", default="4.3")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--speculation", default="off", help="auto: what planning drafts costs too")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--serve-flag", action="append", default=[], help="more for tandem serve")
    arguments = parser.parse_args()
    os.environ["TANDEM_FAKE_PASS_MS"] = arguments.pass_ms
    results = {gateway: [] for gateway in arguments.gateways}
    for _ in range(arguments.turns):
        for gateway, spent in results.items():
            spent.append(measure(gateway, arguments))
    for gateway, turns in results.items():
        print(f"{gateway}: {statistics.median(sum(turn.values()) for turn in turns):.0f} us a step")
        for thread in {key: None for turn in turns for key in turn}:
            value = statistics.median(turn[thread] for turn in turns)
            if value >= 1.0:
                print(f"  {thread:20} {value:6.1f}")


if __name__ == "__main__":
    main()
