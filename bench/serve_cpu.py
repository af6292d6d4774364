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
import re
import statistics
import subprocess
import tempfile
import threading
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = ROOT / "build" / "bin"
READY = re.compile(r"^ready  grpc (\S+) · metrics (http://\S+)")


class Server:
    def __init__(self, model, draft, *flags):
        command = [str(BIN / "tandem"), "serve", "--target", model, "--listen", "127.0.0.1:0",
                   "--metrics-listen", "127.0.0.1:0", *flags]
        command += ["--draft", draft] if draft else ["--no-draft"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            match = READY.match(line)
            if match:
                self.address, self.metrics_url = match.groups()
                break
        else:
            raise RuntimeError("the server did not start")
        threading.Thread(target=lambda: list(self.process.stderr), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)

    def gateway_seconds(self):
        """CPU seconds of the gateway so far."""
        out = subprocess.run(["pgrep", "-P", str(self.process.pid), "-f", "tandem-gateway"],
                             capture_output=True, text=True, check=True).stdout
        fields = pathlib.Path(f"/proc/{int(out)}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def target_steps(self):
        with urllib.request.urlopen(self.metrics_url, timeout=10) as response:
            text = response.read().decode()
        for line in text.splitlines():
            if line.startswith("tandem_step_duration_seconds_count") and "target" in line \
                    and "round_trip" in line:
                return float(line.rsplit(" ", 1)[1])
        raise RuntimeError("no step counter")


def load(server, **options):
    """The report of one `tandem bench serve`."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [str(BIN / "tandem"), "bench", "serve", "--endpoint", server.address, "--json",
                   file.name]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(pathlib.Path(file.name).read_text())


def median(values):
    return statistics.median(values)


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


def cached_prompt(server, turns):
    """p50 of the time to first token of 2k prompts, new and with a cached prefix."""
    new, cached = [], []
    for turn in range(turns):
        new.append(load(server, concurrency=1, requests=4, prompt_tokens=2048, output_tokens=2,
                        load_seed=100 + turn, warmup=0)["ttft_s"]["p50"])
        shared = load(server, concurrency=1, requests=6, prompt_tokens=16, output_tokens=2,
                      shared_prefix_tokens=2032, load_seed=200 + turn, warmup=0)
        cached.append(shared["ttft_s"]["p50"])
    return new, cached


def latency_beside_prefill(server, turns, streams):
    """p99 of the inter-token latency of `streams` decodes, without and with 4k prompts."""
    without, with_prompts, ttft = [], [], []
    for turn in range(turns):
        def decode():
            return load(server, concurrency=streams, requests=streams, prompt_tokens=64,
                        output_tokens=300, speculation="off", load_seed=300 + turn, warmup=1)
        without.append(decode()["itl_s"])
        stop = threading.Event()

        def prompts():
            seed = 1000 * turn
            while not stop.is_set():
                seed += 1
                ttft.append(load(server, concurrency=1, requests=1, prompt_tokens=4000,
                                 output_tokens=1, load_seed=seed, warmup=0)["ttft_s"]["p50"])
        thread = threading.Thread(target=prompts)
        thread.start()
        with_prompts.append(decode()["itl_s"])
        stop.set()
        thread.join()
    return without, with_prompts, ttft


def overload(model):
    """Ten times what can be served: how soon the refused know, and that others end well."""
    with Server(model, None, "--max-running", "8", "--max-waiting", "8") as server:
        capacity = load(server, concurrency=8, requests=24, prompt_tokens=32,
                        output_tokens=32)["requests_per_second"]
        return capacity, load(server, rate=10 * capacity, requests=int(60 * capacity),
                              concurrency=1000, prompt_tokens=32, output_tokens=32)


def gateway_overhead(model):
    """CPU microseconds of the gateway for each step at 32 sequences."""
    with Server(model, None, "--max-running", "32") as server:
        load(server, concurrency=32, requests=32, prompt_tokens=16, output_tokens=8)
        seconds, steps = server.gateway_seconds(), server.target_steps()
        load(server, concurrency=32, requests=64, prompt_tokens=16, output_tokens=128,
             speculation="off", warmup=0)
        return 1e6 * (server.gateway_seconds() - seconds) / (server.target_steps() - steps)


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
    raw["overload"] = {key: report[key] for key in ("ok", "rejected", "failed", "rejection_s")}
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
