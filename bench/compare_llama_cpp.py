#!/usr/bin/env python3
"""Compares Tandem's forward pass with llama.cpp's, in one run, on one model file.

Both sides use the same model, threads and KV type, and take turns; each figure is the
median of the turns. Writes JSON and markdown to bench/results/. llama.cpp comes from the
Python package llama-cpp-python (`pip install llama-cpp-python` builds it for this machine).

  bench/compare_llama_cpp.py --model build/models/smollm2-135m-instruct.q4_1.gguf
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FORWARD_BENCH = ROOT / "build" / "bin" / "forward_bench"


def llama_child(model, threads, kv):
    """Runs in a process of its own; prints one JSON object."""
    import numpy
    from llama_cpp import Llama

    options = {"type_k": 2, "type_v": 2, "flash_attn": True} if kv == "q4" else {}
    llm = Llama(model, n_ctx=2304, n_threads=threads, n_threads_batch=threads, n_batch=512,
                verbose=False, **options)
    tokens = numpy.random.RandomState(0).randint(100, 40000, 2304).tolist()

    def seconds(function):
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    def decode(count):
        def run():
            for token in tokens[:count]:
                llm.eval([token])
        return run

    result = {}
    llm.eval(tokens[:512])  # first touch
    llm.reset()
    result["prefill_512_tokens_per_second"] = 512 / seconds(lambda: llm.eval(tokens[:512]))
    llm.reset()
    llm.eval(tokens[:1])
    decode(4)()
    result["decode_tokens_per_second"] = 48 / seconds(decode(48))
    llm.reset()
    llm.eval(tokens[:2048])
    decode(2)()
    one = seconds(decode(24)) / 24
    result["decode_2k_tokens_per_second"] = 1 / one
    five = min(seconds(lambda: llm.eval(tokens[:5])) for _ in range(6))
    result["verify_5_over_1_at_2k"] = five / one
    print(json.dumps(result))


def run_llama(model, threads, kv):
    command = [sys.executable, __file__, "--model", model, "--threads", str(threads),
               "--llama-child", kv]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def run_tandem(model, threads, kv):
    command = [str(FORWARD_BENCH), "--model", model, "--threads", str(threads), "--kv", kv,
               "--json"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def medians(samples):
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


def machine():
    cpu = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True,
                            capture_output=True, check=False).stdout.strip()
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "commit": commit,
            "date": datetime.date.today().isoformat()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results")
    parser.add_argument("--llama-child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.llama_child:
        llama_child(options.model, options.threads, options.llama_child)
        return
    sides = {(side, kv): [] for side in ("tandem", "llama.cpp") for kv in ("f16", "q4")}
    for turn in range(options.turns):
        for kv in ("f16", "q4"):
            print(f"turn {turn + 1}/{options.turns}, {kv} KV", file=sys.stderr)
            sides["tandem", kv].append(run_tandem(options.model, options.threads, kv))
            sides["llama.cpp", kv].append(run_llama(options.model, options.threads, kv))
    report = {"machine": machine(), "model": pathlib.Path(options.model).name,
              "threads": options.threads, "turns": options.turns,
              "results": {f"{side} {kv}": medians(samples)
                          for (side, kv), samples in sides.items()}}
    write_report(report, options.out)


def write_report(report, out):
    results = report["results"]
    lines = [f"# Forward pass against llama.cpp: {report['model']}, {report['threads']} threads",
             "", f"{report['machine']}", "",
             f"Medians of {report['turns']} turns, both sides in one run.", "",
             "| figure | KV | Tandem | llama.cpp | ratio |", "|---|---|---|---|---|"]
    for kv in ("f16", "q4"):
        ours, theirs = results[f"tandem {kv}"], results[f"llama.cpp {kv}"]
        for key in theirs:
            ratio = ours[key] / theirs[key]
            lines.append(f"| {key} | {kv} | {ours[key]:.2f} | {theirs[key]:.2f} | {ratio:.2f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    (out / "cpu_forward.md").write_text(text)
    (out / "cpu_forward.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
