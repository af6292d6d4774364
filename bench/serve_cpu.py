#!/usr/bin/env python3
"""Figures of the gateway's scheduler on a CPU, as ratios taken in one run.

Starts servers, puts load on them with `tandem bench serve`, sides in turn, medians of the
turns; writes JSON and Markdown to bench/results/. For the row against llama.cpp: its own
batched step (llama_decode of 8 sequences through llama-cpp-python's library), which is what
llama-server's slots run, without HTTP.

  bench/serve_cpu.py --model TARGET.gguf --draft DRAFT.gguf [--llama-python PYTHON]
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess

from serving import (ROOT, Server, cached_prompt, gateway_overhead, latency_beside_prefill, load,
                     median)


def throughput(server, turns, texts):
    """Output tokens a second by (concurrency, speculation), in turn."""
    results = {}
    for turn in range(turns):
        for concurrency in (1, 8):
            for mode in ("off", "auto"):
                report = load(server, concurrency=concurrency, requests=4 * concurrency,
                              output_tokens=64, speculation=mode, texts=texts,
                              load_seed=10 + turn, warmup=concurrency)
                results.setdefault(f"{concurrency} {mode}", []).append(
                    report["output_tokens_per_second"])
    return results


def overload(model):
    """Ten times what can be served: how soon the refused know, and that others end well."""
    with Server(model, None, "--max-running", "8", "--max-waiting", "8",
                "--max-requests-per-client", "0") as server:
        capacity = load(server, concurrency=8, requests=24, prompt_tokens=32,
                        output_tokens=32)["requests_per_second"]
        return capacity, load(server, rate=10 * capacity, requests=int(60 * capacity),
                              prompt_tokens=32, output_tokens=32)


def llama_slots(python, model, threads):
    """Tokens a second of llama.cpp with 1 and 8 sequences in a batch."""
    script = ROOT / "bench" / "llama_slots.py"
    out = subprocess.run([python, str(script), model, str(threads)], capture_output=True,
                         text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--draft", required=True)
    parser.add_argument("--texts", default=str(ROOT / "bench" / "serve_texts.txt"))
    parser.add_argument("--llama-python", help="a Python with llama-cpp-python")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", default=str(ROOT / "bench" / "results" / "serve_cpu"))
    arguments = parser.parse_args()
    turns = arguments.turns
    pathlib.Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    rows, raw = [], {}

    def add(name, value, must, goal):
        rows.append((name, value, must, goal))
        print(f"{name}: {value}", flush=True)

    with Server(arguments.model, arguments.draft) as server:
        raw["throughput"] = speeds = throughput(server, turns, arguments.texts)
        tokens = {key: median(values) for key, values in speeds.items()}
        add("8 concurrent against 1, tok/s, speculation off", tokens["8 off"] / tokens["1 off"],
            "2.0x", "3.0x")
        for concurrency in (1, 8):
            add(f"speculation auto against off at {concurrency}",
                tokens[f"{concurrency} auto"] / tokens[f"{concurrency} off"], "0.97x", "")
        raw["ttft_new"], raw["ttft_cached"] = new, cached = cached_prompt(server, turns)
        add("TTFT of a 2k prompt, cached against not", median(cached) / median(new), "0.15x",
            "0.05x")
        for streams in (4, 8):
            raw[f"itl_{streams}"] = without, beside, ttft = latency_beside_prefill(
                server, turns, streams)
            add(f"p99 ITL of {streams} streams beside 4k prompts, against without",
                median([itl["p99"] for itl in beside]) / median([itl["p99"] for itl in without]),
                "2x", "1.3x")
            add(f"... TTFT of those prompts, s ({streams} streams)", median(ttft), "", "")
    if arguments.llama_python:
        raw["llama"] = slots = [llama_slots(arguments.llama_python, arguments.model,
                                            os.cpu_count()) for _ in range(turns)]
        add("8 concurrent against llama.cpp with 8 slots (no HTTP there)",
            tokens["8 off"] / median([slot["8"] for slot in slots]), "1.2x", "2x")
        add("1 against llama.cpp with 1 (no HTTP there)",
            tokens["1 off"] / median([slot["1"] for slot in slots]), "", "")
    raw["overhead"] = gateway_overhead(arguments.model)
    add("gateway CPU time a step at batch 32, us", raw["overhead"], "300", "100")
    capacity, report = overload(arguments.model)
    raw["overload"] = {key: report[key] for key in ("ok", "rejected", "failed", "not_sent",
                                                     "rejection_s", "lateness_s")}
    add("refusals at 10x overload, p99 ms", 1e3 * report["rejection_s"]["p99"], "10", "")
    add("... failed requests (answered {ok}, refused {rejected})".format(**report),
        report["failed"], "0", "")

    machine = {"cpu": platform.processor() or "x86-64", "cores": os.cpu_count(),
               "kernel": platform.release(), "load_average": os.getloadavg()[0],
               "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT,
                                        capture_output=True, text=True, check=True).stdout.strip(),
               "date": datetime.date.today().isoformat()}
    text = ["# The scheduler on a CPU", "", f"Model {pathlib.Path(arguments.model).name}; medians "
            f"of {turns} turns, sides in turn in one run.", "", str(machine), "",
            "| figure | value | must | goal |", "|---|---|---|---|"]
    text += [f"| {name} | {value:.3g} | {must} | {goal} |" for name, value, must, goal in rows]
    pathlib.Path(arguments.out + ".md").write_text("\n".join(text) + "\n")
    pathlib.Path(arguments.out + ".json").write_text(
        json.dumps({"machine": machine, "raw": raw}, indent=1) + "\n")


if __name__ == "__main__":
    main()
