#!/usr/bin/env python3
"""Measures drafting against plain decoding, and how many draft tokens are accepted.

Starts `tandem serve` and sends the hand-written prompts of tools/distill/held_out.json and
a few that are heavy to copy, each with speculation and without, one right after the other
and in turns, so that noise meets both. Greedy unless told; 128 tokens. Speed is of decoding:
seconds per output token OFF over those of the mode. "the mix" is all of them one after
another: seconds of all answers, each by the median of its turns. Writes JSON; markdown on
stdout. --mix compares AUTO with every fixed length that could be the best one.

  bench/speculation.py --draft D.gguf [--mode AUTO --mode DRAFT:4] [--per-class 4] [--json out]
  bench/speculation.py --mix --per-class 1 --turns 3
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ROOT / "build" / "models"
PASSAGE = (
    "The harbour of the town was built in 1874 by a company of Dutch engineers. It has two long "
    "walls of granite, which keep the waves of the open sea away, and a lighthouse at the end of "
    "the northern one. Until 1950 it was mostly used by fishing boats. Later a ferry to the "
    "islands was added, and today about forty thousand passengers use it every summer. The old "
    "cranes are still there; the council wants to keep them as a monument.")
CODE = """def read_table(path):
    rows = []
    with open(path) as file:
        header = file.readline().strip().split(",")
        for line in file:
            values = line.strip().split(",")
            if len(values) != len(header):
                continue
            row = dict(zip(header, values))
            rows.append(row)
    return rows
"""
COPY = [
    f"Correct the spelling and return the whole text:\n\n{PASSAGE}",
    f"Repeat this text exactly, word for word:\n\n{PASSAGE}",
    f"Add a docstring to this function and print the whole function again:\n\n```python\n{CODE}```",
    f"Rename the variable rows to table and print the whole function:\n\n```python\n{CODE}```",
    f"Quote the sentences of this text as a numbered list:\n\n{PASSAGE}",
    f"Summarize this text by quoting its most important sentences:\n\n{PASSAGE}",
]
RANDOM = [
    "Print this line again and then twenty more of the kind: qz7 Vb! 0x3f kk_ 91;p Tt~ wm4 %ra ]e2",
    "xk qpw 83 zzv lo1 ;; mnb 7y7 cv@ 0 0 1 pq rty fgh 44 ! jkl; {}{ vbn 9 wxq",
]
LONG = ("List what you would do to make a small library more useful for the people of a village. "
        "Think of children after school, of those who work all day, of old people who cannot walk "
        "far, and of visitors in summer. The library has two rooms, a garden, one employee, three "
        "computers and very little money; books can be borrowed from the next town. Say for each "
        "idea what it needs, who would gain by it and how one can see after a year that it was "
        "worth the work. End with the one idea that you would begin with tomorrow.")  # 100 tokens
MIX = ["AUTO", *(f"DRAFT:{n}" for n in (1, 2, 3, 4, 6, 8)), *(f"LOOKUP:{n}" for n in (2, 4, 8, 16))]


def api():
    """The generated gRPC modules of the gateway."""
    from grpc_tools import protoc
    out = tempfile.mkdtemp()
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    if protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={out}",
                    f"--grpc_python_out={out}",
                    str(ROOT / "proto/tandem/gateway/v1/gateway.proto")]) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, out)
    from tandem.gateway.v1 import gateway_pb2, gateway_pb2_grpc
    return gateway_pb2, gateway_pb2_grpc


def start(arguments):
    command = [str(ROOT / "build/bin/tandem"), "serve", "--target", arguments.target, "--draft",
               arguments.draft, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    if arguments.draft_kv:
        command += ["--draft-kv", arguments.draft_kv]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               text=True)
    for line in process.stderr:
        if match := re.match(r"ready  grpc (\S+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, match.group(1)
    sys.exit(f"the server ended with {process.wait()}")


def prompts_by_class(per_class):
    with open(ROOT / "tools/distill/held_out.json") as file:
        classes = json.load(file)
    chosen = {name: prompts[:per_class] for name, prompts in classes.items()}
    return chosen | {"copy-heavy": COPY[:max(2, per_class)], "random text": RANDOM,
                     "100 tokens": [LONG]}


class Client:
    def __init__(self, address, arguments):
        import grpc
        self.pb, stubs = api()
        self.stub = stubs.GatewayServiceStub(grpc.insecure_channel(address))
        self.arguments = arguments

    def run(self, prompt, mode):
        """Seconds of decoding, and the report, of one answer."""
        pb = self.pb
        name, _, length = mode.partition(":")
        request = pb.GenerateRequest(
            chat=pb.Chat(messages=[pb.ChatMessage(role="user", content=prompt)]),
            stopping=pb.Stopping(max_tokens=self.arguments.tokens),
            sampling=pb.Sampling(temperature=self.arguments.temperature, seed=1),
            speculation=pb.Speculation(mode=f"MODE_{name}", rule=f"RULE_{self.arguments.rule}",
                                       draft_length=int(length or 0)))
        for event in self.stub.Generate(request, timeout=120):
            if event.HasField("finished"):
                finished = event.finished
        seconds = finished.timings.decode.ToNanoseconds() / 1e9
        report = finished.speculation
        return {"seconds": seconds, "tokens": finished.usage.output_tokens,
                "steps": report.step_count, "drafted": report.draft_token_count,
                "accepted": report.accepted_token_count,
                "lookup_drafted": report.lookup_draft_token_count,
                "lookup_accepted": report.lookup_accepted_token_count}


def measure(client, arguments):
    """For each class and mode the answers, and those of OFF beside them."""
    results = {}
    client.run("Hello", "AUTO")
    for turn in range(arguments.turns):
        for name, prompts in prompts_by_class(arguments.per_class).items():
            for index, prompt in enumerate(prompts):
                modes = ["OFF", *arguments.mode]
                first = (turn + index) % len(modes)
                modes = modes[first:] + modes[:first]
                if (turn + index) % 2:
                    modes.reverse()
                for mode in modes:
                    answer = client.run(prompt, mode)
                    results.setdefault(name, {}).setdefault(mode, []).append(answer)
    return results


def summary(answers, plain):
    """Ratios of answers to those of OFF, in the same order."""
    speed = [(p["seconds"] / max(1, p["tokens"])) / (a["seconds"] / max(1, a["tokens"]))
             for a, p in zip(answers, plain) if a["tokens"] >= 8 and p["tokens"] >= 8]
    drafted = sum(a["drafted"] for a in answers)
    steps = sum(a["steps"] for a in answers)
    return {"speed": statistics.median(speed) if speed else 1.0, "answers": len(answers),
            "acceptance_rate": sum(a["accepted"] for a in answers) / max(1, drafted),
            "acceptance_length": sum(a["tokens"] for a in answers) / max(1, steps),
            "from_lookup": sum(a["lookup_drafted"] for a in answers) / max(1, drafted)}


def mix(results, arguments):
    """For each mode the seconds that all prompts of all classes take, one after another: each
    at the median pace of its turns, and as long as OFF's answer, so that all write as much."""
    seconds = {}
    for name, prompts in prompts_by_class(arguments.per_class).items():
        for index in range(len(prompts)):
            tokens = results[name]["OFF"][index]["tokens"]
            for mode, answers in results[name].items():
                turns = [a["seconds"] / max(1, a["tokens"] - 1)
                         for a in answers[index::len(prompts)]]
                pace = statistics.median(turns)
                seconds[mode] = seconds.get(mode, 0.0) + (tokens - 1) * pace
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default=str(MODELS / "smollm2-135m-instruct.q4_1.gguf"))
    parser.add_argument("--draft", default=str(MODELS / "smollm2-135m-instruct.tiny.q4_1.gguf"))
    parser.add_argument("--draft-kv", help="q4, q8 or f16")
    parser.add_argument("--mode", action="append", help="AUTO, DRAFT:4, LOOKUP, ...")
    parser.add_argument("--rule", default="COUPLED")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--per-class", type=int, default=8)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--mix", action="store_true", help=f"the modes {' '.join(MIX)}")
    parser.add_argument("--json", help="file for all figures")
    arguments = parser.parse_args()
    arguments.mode = arguments.mode or (MIX if arguments.mix else ["AUTO"])
    load = os.getloadavg()[0]
    process, address = start(arguments)
    try:
        results = measure(Client(address, arguments), arguments)
    finally:
        process.terminate()
        process.wait()
    table = {name: {mode: summary(answers, by_mode["OFF"]) for mode, answers in by_mode.items()
                    if mode != "OFF"} for name, by_mode in results.items()}
    chat = [name for name in table if name not in ("copy-heavy", "random text", "100 tokens")]
    for mode in arguments.mode:
        together = {"answers": sum((results[name][mode] for name in chat), []),
                    "plain": sum((results[name]["OFF"] for name in chat), [])}
        table.setdefault("all chat", {})[mode] = summary(together["answers"], together["plain"])
    print("| class | mode | speed over OFF | acceptance rate | acceptance length | lookup |")
    print("|---|---|---|---|---|---|")
    for name, by_mode in table.items():
        for mode, row in by_mode.items():
            print(f"| {name} | {mode} | {row['speed']:.2f} | {row['acceptance_rate']:.3f} | "
                  f"{row['acceptance_length']:.2f} | {row['from_lookup']:.2f} |")
    seconds = mix(results, arguments)
    print(f"\n1-minute load before {load:.1f}, after {os.getloadavg()[0]:.1f}\n")
    print("| mode | the mix, seconds | speed over OFF |\n|---|---|---|")
    for mode, total in seconds.items():
        print(f"| {mode} | {total:.2f} | {seconds['OFF'] / total:.3f} |")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(
            {"draft": pathlib.Path(arguments.draft).name, "rule": arguments.rule,
             "temperature": arguments.temperature, "draft_kv": arguments.draft_kv,
             "load": load, "mix_seconds": seconds, "table": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
